// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/medirecord/medirecord/internal/med"
)

// FieldReason is the field of a trail entry that a policy speaks of: the text that
// was written when a glass was broken. The others are in med.
const FieldReason med.Field = "reason"

var (
	clinicalFields = append(slices.Clone(med.PatientFields), med.RecordFields...)
	everyField     = append(slices.Clone(clinicalFields), FieldReason)
	// Only these have a mask that keeps the shape and tells nothing else.
	maskable = []med.Field{med.FieldSSN, med.FieldDOB}
)

// decode reads the policy's answer. It reports what is wrong with one that
// does not have the shape, or speaks of fields that do not exist: a misspelt
// field would be hidden, and nobody would know why.
func decode(out any) (med.Decision, error) {
	m, ok := out.(map[string]any)
	if !ok {
		return med.Decision{}, fmt.Errorf("decision is not an object")
	}
	for name := range m {
		if !slices.Contains([]string{"allow", "reason_code", "fields", "write", "obligations"}, name) {
			return med.Decision{}, fmt.Errorf("decision has an unknown part %q", name)
		}
	}
	var d med.Decision
	var err error
	if d.Allow, ok = m["allow"].(bool); !ok {
		return med.Decision{}, fmt.Errorf("allow is not true or false")
	}
	if d.Reason, ok = m["reason_code"].(string); !ok || !isCode(d.Reason) {
		return med.Decision{}, fmt.Errorf("reason_code is not a lower-case word")
	}
	if d.View, err = decodeView(m["fields"]); err != nil {
		return med.Decision{}, err
	}
	if d.Write, err = decodeWrite(m["write"]); err != nil {
		return med.Decision{}, err
	}
	if err := decodeObligations(&d, m["obligations"]); err != nil {
		return med.Decision{}, err
	}
	if !d.Allow { // whatever else the file says
		return med.Decision{Reason: d.Reason}, nil
	}
	return d, nil
}

func decodeView(v any) (med.View, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("fields is not an object")
	}
	view := make(med.View, len(m))
	for name, word := range m {
		field := med.Field(name)
		if !slices.Contains(everyField, field) {
			return nil, fmt.Errorf("fields names %q, which does not exist", name)
		}
		text, _ := word.(string)
		show := med.ParseShow(text)
		if show.String() != text {
			return nil, fmt.Errorf("fields.%s is not reveal, mask or hide", name)
		}
		if show == med.Mask && !slices.Contains(maskable, field) {
			return nil, fmt.Errorf("fields.%s cannot be masked: only ssn and dob have a mask", name)
		}
		view[field] = show
	}
	return view, nil
}

func decodeWrite(v any) (map[med.Field]bool, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("write is not an object")
	}
	write := make(map[med.Field]bool, len(m))
	for name, word := range m {
		if !slices.Contains(clinicalFields, med.Field(name)) {
			return nil, fmt.Errorf("write names %q, which does not exist", name)
		}
		yes, ok := word.(bool)
		if !ok {
			return nil, fmt.Errorf("write.%s is not true or false", name)
		}
		if yes {
			write[med.Field(name)] = true
		}
	}
	return write, nil
}

func decodeObligations(d *med.Decision, v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("obligations is not an object")
	}
	list, ok := m["notify"].([]any)
	if !ok {
		return fmt.Errorf("obligations.notify is not a list")
	}
	for _, item := range list {
		who, ok := item.(string)
		if !ok || !isCode(who) {
			return fmt.Errorf("obligations.notify is not a list of lower-case words")
		}
		d.Notify = append(d.Notify, who)
	}
	slices.Sort(d.Notify)
	number, ok := m["max_rows"].(json.Number)
	if !ok {
		return fmt.Errorf("obligations.max_rows is not a number")
	}
	rows, err := number.Int64()
	if err != nil || rows < 0 || rows > 1_000_000 {
		return fmt.Errorf("obligations.max_rows is not a whole number from 0 to 1000000")
	}
	d.MaxRows = int(rows)
	return nil
}

// isCode reports whether the word is fit for a log and a metric label.
func isCode(s string) bool {
	return s != "" && len(s) <= 40 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}
