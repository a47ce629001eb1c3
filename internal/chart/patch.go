// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// writable reports Forbidden for a patch of a field that the decision does not
// let the caller write: the same, whatever is stored.
func writable(d med.Decision, p med.Patch) error {
	e := med.Forbidden.New("Your role may not write all of these fields.").Coded("field_not_writable")
	for _, f := range p.Fields() {
		if !d.Write[f] {
			e = e.With(med.FieldError{Pointer: "/" + string(f), Reason: "not yours to write"})
		}
	}
	if len(e.Fields) > 0 {
		return e
	}
	return nil
}

// patched returns what the patch makes of a patient's fields, as they are
// sealed: nil for one that goes. have gives what is there now, for the fields
// that have parts, of which a patch may name some. It reports Invalid, and
// where: a mask that came back (it would take the place of what its sender does
// not see), and whatever no patient has.
func patched(p med.Patch, now time.Time, have func(med.Field) ([]byte, error)) (map[string][]byte, error) {
	out := make(map[string][]byte, len(p))
	var wrong []med.FieldError
	masked := false
	for _, f := range p.Fields() {
		raw := []byte(p[f].Reveal())
		plain, at, err := patchedField(f, raw, have)
		if err != nil {
			return nil, err
		}
		if at != nil {
			wrong = append(wrong, *at)
			continue
		}
		if holdsMask(raw) {
			masked = true
			wrong = append(wrong, med.FieldError{Pointer: "/" + string(f), Reason: "a mask: leave out what you do not see"})
			continue
		}
		out[string(f)] = plain
		if plain == nil {
			continue
		}
		var checked med.Patient
		if err := setField(&checked, f, plain); err != nil {
			return nil, err
		}
		wrong = append(wrong, checked.Check(f, now)...)
	}
	if len(wrong) == 0 {
		return out, nil
	}
	e := med.Invalid.New("").With(wrong...)
	if masked {
		e = e.Coded("masked_value")
	}
	return nil, e
}

func patchedField(f med.Field, raw []byte, have func(med.Field) ([]byte, error)) (plain []byte, wrong *med.FieldError, err error) {
	if string(raw) == "null" {
		return nil, nil, nil
	}
	switch f {
	case med.FieldName:
		return patchedName(raw, have)
	case med.FieldAddress:
		return patchedParts[sealedAddress](f, raw, have)
	case med.FieldInsurance:
		return patchedParts[sealedInsurance](f, raw, have)
	default: // a text
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return nil, &med.FieldError{Pointer: "/" + string(f), Reason: "not a string"}, nil //nolint:nilerr // the sender's mistake, told as one
	}
	if text == "" {
		return nil, &med.FieldError{Pointer: "/" + string(f), Reason: "empty: send null to take it away"}, nil
	}
	return []byte(text), nil, nil
}

// patchedName keeps the written form of a name with its parts: who changes a
// part, and does not say how the whole is written, changes that too.
func patchedName(raw []byte, have func(med.Field) ([]byte, error)) (plain []byte, wrong *med.FieldError, err error) {
	plain, wrong, err = patchedParts[sealedName](med.FieldName, raw, have)
	var said map[string]json.RawMessage
	if err != nil || wrong != nil || plain == nil || json.Unmarshal(raw, &said) != nil {
		return plain, wrong, err
	}
	var p med.Patient
	if err := setField(&p, med.FieldName, plain); err != nil {
		return nil, nil, err
	}
	if text, ok := said["text"]; !ok && len(said) > 0 || string(text) == "null" {
		p.Name.Text = ""
		p.Name.Text = p.Name.Written()
	}
	fields, err := patientFields(&p)
	return fields[string(med.FieldName)], nil, err
}

// patchedParts merges a patch of a field with parts into what is there.
func patchedParts[T any](f med.Field, raw []byte, have func(med.Field) ([]byte, error)) (plain []byte, wrong *med.FieldError, err error) {
	now, err := have(f)
	if err != nil {
		return nil, nil, err
	}
	merged, ok, err := mergedJSON(now, raw)
	if err != nil {
		return nil, nil, fmt.Errorf("field %s does not read", f)
	}
	if !ok {
		return nil, &med.FieldError{Pointer: "/" + string(f), Reason: "not an object"}, nil
	}
	var v T
	d := json.NewDecoder(bytes.NewReader(merged))
	d.DisallowUnknownFields()
	if d.Decode(&v) != nil {
		return nil, &med.FieldError{Pointer: "/" + string(f), Reason: "not one, or with an unknown part"}, nil //nolint:nilerr // the sender's mistake, told as one
	}
	if plain, err = json.Marshal(v); err != nil || string(plain) == "{}" {
		return nil, nil, err
	}
	return plain, nil, nil
}

// mergedJSON is what a JSON merge patch makes of the object that is there, if
// there is one. It reports false for a patch that is no object, and an error for
// what is there and does not read.
func mergedJSON(now, patch []byte) (out []byte, ok bool, err error) {
	var have, said any
	if now != nil {
		if err := json.Unmarshal(now, &have); err != nil {
			return nil, false, errors.New("what is there does not read")
		}
	}
	if json.Unmarshal(patch, &said) != nil {
		return nil, false, nil //nolint:nilerr // the sender's mistake, told as one
	}
	if _, ok := said.(map[string]any); !ok {
		return nil, false, nil
	}
	out, err = json.Marshal(merged(have, said))
	return out, err == nil, err
}

// merged is MergePatch of RFC 7386: members that are null go, objects are merged
// member by member, and whatever else is sent takes the place of what was.
func merged(now, patch any) any {
	said, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out, ok := now.(map[string]any)
	if !ok {
		out = map[string]any{}
	}
	for name, v := range said {
		if v == nil {
			delete(out, name)
		} else {
			out[name] = merged(out[name], v)
		}
	}
	return out
}

// holdsMask reports whether a text anywhere in the JSON is one of our masks.
func holdsMask(raw []byte) bool {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	for {
		t, err := d.Token()
		if err != nil {
			return false
		}
		if s, ok := t.(string); ok && IsMask(s) {
			return true
		}
	}
}
