// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"errors"
	"fmt"
)

// ErrNotBundle is what a Refusal wraps when the input is JSON of another sort:
// not an object, or an object that is no Bundle.
var ErrNotBundle = errors.New("not a FHIR bundle")

// ErrTooLarge is what a Refusal wraps when a limit is passed.
var ErrTooLarge = errors.New("too large")

// ErrNoPatient is what a Refusal wraps when a bundle is sound but holds no
// patient: one of hospitals or practitioners, for example.
var ErrNoPatient = errors.New("no patient")

// Place is the part of the input a refusal or a warning speaks of.
type Place string

// The places. An entry is counted from 0 as in Bundle.entry, a line from 1 as
// editors count.
const (
	Whole Place = "bundle"
	Entry Place = "entry"
	Line  Place = "line"
)

// Refusal says where input was refused and why. It never carries a value, so it
// may be shown and logged.
type Refusal struct {
	Place  Place
	Index  int
	Reason string
	cause  error
}

func (r *Refusal) Error() string {
	if r.Place == Whole || r.Place == "" {
		return "bundle: " + r.Reason
	}
	return fmt.Sprintf("%s %d: %s", r.Place, r.Index, r.Reason)
}

func (r *Refusal) Unwrap() error { return r.cause }

// at returns the refusal with its place, unless it has one.
func at(err error, place Place, index int) error {
	var r *Refusal
	if !errors.As(err, &r) || r.Place != "" {
		return err
	}
	return &Refusal{Place: place, Index: index, Reason: r.Reason, cause: r.cause}
}

// refuse is a refusal that has no place yet.
func refuse(reason string) *Refusal { return &Refusal{Reason: reason} }

func tooLarge(reason string) *Refusal { return &Refusal{Reason: reason, cause: ErrTooLarge} }

// Warning says what could not be mapped of a resource that was kept whole. It
// names the element and never carries a value.
type Warning struct {
	Place   Place
	Index   int
	Type    string // resource type, when it is one FHIR could have
	Element string
	Reason  string
}

func (w Warning) String() string {
	return fmt.Sprintf("%s %d: %s.%s: %s", w.Place, w.Index, w.Type, w.Element, w.Reason)
}

// Limits bound what a reader takes in. A zero field means its default.
type Limits struct {
	Entry   int   // bytes of one entry or line; 4 MiB
	Depth   int   // nested arrays and objects within an entry; 64
	Entries int   // entries of a bundle, lines of a patient; 50,000
	Total   int64 // bytes of one bundle that is held as a whole; 64 MiB. BundleReader and NDJSONReader stream and do not count it.
}

func (l Limits) withDefaults() Limits {
	if l.Entry <= 0 {
		l.Entry = 4 << 20
	}
	l.Entry = min(l.Entry, 1<<30) // offsets within an entry are 32 bits
	if l.Depth <= 0 {
		l.Depth = 64
	}
	if l.Entries <= 0 {
		l.Entries = 50_000
	}
	if l.Total <= 0 {
		l.Total = 64 << 20
	}
	return l
}
