// SPDX-License-Identifier: Apache-2.0

// Package children starts processes that cannot outlive the one that started
// them, and stops them in order.
//
// The promise holds even for kill -9 of the supervisor: on Linux the kernel
// sends each child its death signal. It never restarts a child, never decides
// what a dead child means, and never passes the supervisor's environment on.
// A process that a child starts for itself is that child's to look after.
package children
