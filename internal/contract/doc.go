// SPDX-License-Identifier: Apache-2.0

// Package contract holds the API to docs/openapi.yaml: its tests send what the
// file documents, and what it does not, to a whole system, and check each answer
// against the file. It has no code but tests; nobody imports it.
//
// An operation that somebody adds is found by itself. It needs one exercise, in
// exercises_test.go: who is served, and for which resource.
package contract
