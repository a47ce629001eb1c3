// SPDX-License-Identifier: Apache-2.0

package envelope

import "errors"

// What can go wrong, beside med.KeysUnavailable. None carries a value or a key.
var (
	// ErrDestroyed says that a keeper's key was destroyed: what it wrapped will
	// never open again.
	ErrDestroyed = errors.New("envelope: key is destroyed")
	// ErrOpen says that something sealed or wrapped does not open: another key,
	// another place than it was sealed for, or altered bytes.
	ErrOpen = errors.New("envelope: does not open")
	// ErrTampered says that a row's list of fields is not the one that was sealed.
	ErrTampered = errors.New("envelope: row does not match its MAC")
	// ErrMalformed says that bytes are not in the format they should be in.
	ErrMalformed = errors.New("envelope: malformed")
	// ErrCommitment says that a data key is not the one the patient's rows were
	// sealed under.
	ErrCommitment = errors.New("envelope: key does not match its commitment")
	// ErrForgotten says that a key was used after Wipe or Forget.
	ErrForgotten = errors.New("envelope: key was forgotten")
	// ErrMisuse says that a call mixes things that do not belong together: a
	// patient's key and another patient's row, a name or a version that cannot be.
	ErrMisuse = errors.New("envelope: misuse")
	// ErrTooLarge says that a value is larger than this package seals.
	ErrTooLarge = errors.New("envelope: too large")
	// ErrExpired says that a cursor is older than it may be.
	ErrExpired = errors.New("envelope: expired")
)
