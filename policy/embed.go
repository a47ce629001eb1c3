// SPDX-License-Identifier: Apache-2.0

// Package policyfile carries the ready policy files and their cases inside the
// binary. It reads nothing and decides nothing.
package policyfile

import "embed"

// Files holds medirecord.rego, hospital.rego and their cases, laid out as a policy directory
// is on disk.
//
//go:embed medirecord.rego hospital.rego cases/*.yaml cases/hospital/*.yaml
var Files embed.FS
