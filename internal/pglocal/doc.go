// SPDX-License-Identifier: Apache-2.0

// Package pglocal starts a PostgreSQL of our own, for `medirecord dev` and for
// tests, from the programs that the machine has.
//
// The server listens on a unix socket that only its owner and root can reach,
// asks everybody for a password, keeps every durability setting on, and dies
// with the process that started it. Its log carries no text of a statement, no
// parameter and no value. The package never downloads anything, never uses the
// machine's own clusters, and is never part of a production deployment.
package pglocal
