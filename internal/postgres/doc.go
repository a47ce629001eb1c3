// SPDX-License-Identifier: Apache-2.0

// Package postgres opens the clinical database, one fixed role per pool, and
// runs every statement under a context that the sidecar signed. It holds no
// signing key and never decides who may see what: row-level security does
// (migrations/*.sql).
package postgres
