// SPDX-License-Identifier: Apache-2.0

// Package policyfile carries the default policy file and its cases inside the
// binary. It reads nothing and decides nothing.
package policyfile

import "embed"

// Files holds medirecord.rego and cases/*.yaml, laid out as a policy directory
// is on disk.
//
//go:embed medirecord.rego cases/*.yaml
var Files embed.FS
