// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/medirecord/medirecord/internal/med"
)

// The reasons a client reads. A library's message is only matched against, so
// that nothing a client sent can come back in one.
const (
	reasonTwice    = "given more than once"
	reasonNotOneOf = "not one of the allowed values"
	reasonOther    = "not valid"
	reasonKey      = "1 to 255 visible ASCII characters"
	reasonText     = "control or direction characters, or not UTF-8"
)

// shapes maps how a validation message begins to the reason for the client. Those
// with bound end in a number of the schema, which is worth keeping.
var shapes = []struct {
	prefix, reason string
	bound          bool
}{
	{"unknown query parameter", "unknown parameter", false},
	{"required ", "required", false},
	{"invalid integer", "not an integer", false},
	{"expected integer", "not an integer", false},
	{"invalid float", "not a number", false},
	{"invalid boolean", "not true or false", false},
	{"expected boolean", "not true or false", false},
	{"expected number >= ", "at least ", true},
	{"expected number <= ", "at most ", true},
	{"expected number > ", "more than ", true},
	{"expected number < ", "less than ", true},
	{"expected number", "not a number", false},
	{"expected length >= ", "length at least ", true},
	{"expected length <= ", "length at most ", true},
	{"expected array length >= ", "items at least ", true},
	{"expected array length <= ", "items at most ", true},
	{"expected array items to be unique", "items repeat", false},
	{"expected array", "not a list", false},
	{"expected object", "not an object", false},
	{"expected value to be one of", reasonNotOneOf, false},
	{"expected string to be RFC 3339 date-time", "not a time with its zone, like 2026-03-01T08:30:00Z", false},
	{"expected string to be RFC 3339 date", "not a day, like 2026-03-01", false},
	{"expected string to be RFC 4122 uuid", "not a UUID", false},
	{"expected string to ", "not in the right format", false},
	{"expected string", "not a string", false},
	{"unexpected property", "an unknown property", false},
}

// reasonFor returns the reason that a validation message stands for.
func reasonFor(message string) string {
	for _, s := range shapes {
		rest, ok := strings.CutPrefix(message, s.prefix)
		if !ok {
			continue
		}
		if !s.bound {
			return s.reason
		}
		if _, err := strconv.ParseFloat(rest, 64); err == nil && len(rest) < 20 {
			return s.reason + rest
		}
		return reasonOther
	}
	return reasonOther
}

// names are the words of the contract: properties, parameters, headers. Only
// they may appear in a pointer; a key that the client made up may not.
type names map[string]bool

// fieldError turns a validation message into where and why.
func (n names) fieldError(location, message string) med.FieldError {
	const before, after = "expected required property ", " to be present"
	if missing, ok := strings.CutPrefix(message, before); ok {
		return med.FieldError{Pointer: n.pointer(location + "." + strings.TrimSuffix(missing, after)), Reason: "required"}
	}
	return med.FieldError{Pointer: n.pointer(location), Reason: reasonFor(message)}
}

// pointer turns body.name.given[0] into /name/given/0, and query.limit into
// limit. It ends before the first word that the contract does not have.
func (n names) pointer(location string) string {
	in, path, _ := strings.Cut(location, ".")
	words := strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
	for i, w := range words {
		if _, err := strconv.ParseUint(w, 10, 16); err != nil && !n[w] {
			words = words[:i]
			break
		}
	}
	if base, _, _ := strings.Cut(in, "["); base == "body" {
		return "/" + strings.Join(words, "/")
	}
	if len(words) == 0 {
		return "query"
	}
	return words[0]
}

// invalid makes the error of a request that failed validation with the status
// and these messages.
func (n names) invalid(status int, errs []located) *med.Error {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return med.TooLarge.New("")
	case http.StatusUnsupportedMediaType:
		if len(errs) > 0 && errs[0].location == headerCoding {
			return med.UnsupportedMedia.New("Send the body as it is, without a Content-Encoding.")
		}
		return med.UnsupportedMedia.New("")
	case http.StatusBadRequest:
		return unread(errs)
	}
	if status >= http.StatusInternalServerError {
		return med.Internal.Because(errors.New("huma refused to answer"))
	}
	e := med.Invalid.New("")
	for _, l := range errs {
		f := n.fieldError(l.location, l.message)
		// Many unknown keys are one fault: their names are not repeated.
		if !slices.Contains(e.Fields, f) && len(e.Fields) < maxFieldErrors {
			e.Fields = append(e.Fields, f)
		}
	}
	return e
}

// unread is a body that cannot be read, and why, if it is for one of our reasons.
func unread(errs []located) *med.Error {
	e := med.Invalid.New("The body cannot be read.")
	if len(errs) == 0 {
		return e.With(med.FieldError{Pointer: "/", Reason: "required"})
	}
	for _, why := range []error{errJSON, errDepth, errDuplicate, errText} {
		if errs[0].message == why.Error() {
			return e.With(med.FieldError{Pointer: "/", Reason: why.Error()})
		}
	}
	return e.With(med.FieldError{Pointer: "/", Reason: reasonOther})
}

const maxFieldErrors = 32

// located is a validation message and where it applies.
type located struct{ location, message string }

// checkQuery reports Invalid for a query that two readers could read in two
// ways: unreadable parts, a parameter given twice or without a value. Unknown
// parameters are found by Huma, which knows the known ones.
func checkQuery(raw string, known names) error {
	if raw == "" {
		return nil
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return med.Invalid.New("").With(med.FieldError{Pointer: "query", Reason: "not readable"})
	}
	e := med.Invalid.New("")
	for key, values := range q {
		at := "query"
		if known[key] {
			at = key
		}
		switch {
		case len(values) > 1:
			e = e.With(med.FieldError{Pointer: at, Reason: reasonTwice})
		case values[0] == "":
			e = e.With(med.FieldError{Pointer: at, Reason: "empty"})
		case foul(values[0]):
			e = e.With(med.FieldError{Pointer: at, Reason: reasonText})
		}
	}
	if len(e.Fields) == 0 {
		return nil
	}
	slices.SortFunc(e.Fields, func(a, b med.FieldError) int { return strings.Compare(a.Pointer+a.Reason, b.Pointer+b.Reason) })
	e.Fields = slices.Compact(e.Fields)
	return e
}

// foul reports whether text has no place in a record: not UTF-8, or with control
// characters or those that turn the direction of writing, which make it look like
// what it is not. Line ends and tabs are text; so are the joiners of Persian and
// of emoji.
func foul(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
	})
}
