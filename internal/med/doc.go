// SPDX-License-Identifier: Apache-2.0

// Package med holds the words of MediRecord: patients, records, callers,
// views, and the errors that the outside may know. It does no I/O and imports
// nothing of this module.
package med
