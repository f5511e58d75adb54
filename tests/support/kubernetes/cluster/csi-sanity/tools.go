//go:build tools

// Package tools names csi-sanity, so that go.mod and go.sum pin it.
package tools

import _ "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
