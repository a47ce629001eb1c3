// SPDX-License-Identifier: Apache-2.0

// Package envelope seals patient data field by field and keeps the hierarchy
// of keys above it: a keeper's keys (root and epoch), a practice's keys, one
// data key per patient, and what HKDF makes of that.
//
// What it promises: a sealed field opens only for the practice, patient,
// table, record, field, version and key it was sealed for; a row shows
// whether a field was dropped, swapped or rolled back; a field nobody asked
// for is never opened; a key never prints.
//
// What it does not do: it knows no database and no HTTP, decides nothing about
// who may read, caches nothing, and logs nothing. It does not notice that a
// whole row was put back to an older state: Row.MAC names the state, and the
// trail remembers it. Forgetting a key drops it; the Go runtime may keep its
// bytes until the memory is used again.
package envelope
