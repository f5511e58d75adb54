//go:build tools

// Package tools names helm, so that go.mod and go.sum pin it with the cluster's libraries.
package tools

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
