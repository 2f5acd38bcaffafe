//go:build tools

// Package tools keeps krew in go.mod: its programs are built from there.
package tools

import (
	_ "sigs.k8s.io/krew/cmd/krew"
	_ "sigs.k8s.io/krew/cmd/validate-krew-manifest"
)
