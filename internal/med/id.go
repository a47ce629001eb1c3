// SPDX-License-Identifier: Apache-2.0

package med

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// The ids of the system. They are text, unique, and tell nothing about whom
// they name; types keep them from being swapped.
type (
	// PracticeID names a practice: one tenant.
	PracticeID string
	// PatientID names a patient across all practices.
	PatientID string
	// RecordID names a record within its patient.
	RecordID string
	// EventID names an audit entry: a UUID in its text form.
	EventID string
)

// MaxID is the longest id in bytes (FHIR R4 `id`).
const MaxID = 64

// ParsePracticeID returns the id if it is one: 1 to 64 of [A-Za-z0-9.-]
// (FHIR R4 `id`). It reports Invalid otherwise, without the value.
func ParsePracticeID(s string) (PracticeID, error) {
	if !legalID(s) {
		return "", Invalid.New("A practice id is 1 to 64 letters, digits, dots and hyphens.")
	}
	return PracticeID(s), nil
}

// ParsePatientID is ParsePracticeID for patients.
func ParsePatientID(s string) (PatientID, error) {
	if !legalID(s) {
		return "", Invalid.New("A patient id is 1 to 64 letters, digits, dots and hyphens.")
	}
	return PatientID(s), nil
}

// ParseRecordID is ParsePracticeID for records.
func ParseRecordID(s string) (RecordID, error) {
	if !legalID(s) {
		return "", Invalid.New("A record id is 1 to 64 letters, digits, dots and hyphens.")
	}
	return RecordID(s), nil
}

func legalID(s string) bool {
	if len(s) == 0 || len(s) > MaxID {
		return false
	}
	for i := range len(s) {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.'
		if !ok {
			return false
		}
	}
	return true
}

// NewUUID returns a UUID version 7 (RFC 9562, 6.2 method 3): ordered by now to a
// quarter of a microsecond, so that what happens within one millisecond keeps its
// order, and 62 random bits.
func NewUUID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[6:]) // crypto/rand.Read does not fail (Go 1.24)
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	within := uint64(now.Nanosecond()%int(time.Millisecond)) * 4096 / uint64(time.Millisecond) //nolint:gosec // never negative
	b[6], b[7] = byte(within>>8)|0x70, byte(within)
	b[8] = b[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[0:8], b[0:4])
	hex.Encode(out[9:13], b[4:6])
	hex.Encode(out[14:18], b[6:8])
	hex.Encode(out[19:23], b[8:10])
	hex.Encode(out[24:36], b[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

// IsUUID reports whether the text has the form of a UUID (RFC 9562).
func IsUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i] | 0x20
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (s[i] == '-') || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
