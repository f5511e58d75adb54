//go:build tools

// Package tools names nerdctl, so that go.mod and go.sum pin it.
package tools

import _ "github.com/containerd/nerdctl/v2/cmd/nerdctl"
