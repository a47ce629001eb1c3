// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/med"
)

// recordDraft is a record on its way to be written: its header, and those of the
// other fields that change.
type recordDraft struct {
	own   bool // who writes is its author
	head  sealedHeader
	value *sealedValue // nil: it stays as it is
	note  *string      // nil: it stays as it is; empty: it goes
	had   sealedValue
	noted bool // there is a note already
	wrong []med.FieldError
}

// Longest parts of a record, in characters.
const (
	maxCodes   = 32
	maxCode    = 128
	maxDisplay = 500
	maxNote    = 64 << 10
	maxValue   = 4000
)

var statusShape = regexp.MustCompile(`^[a-z]{1,32}(-[a-z]{1,32}){0,3}$`)

// load opens what a patch of parts is merged into.
func (d *recordDraft) load(key *envelope.PatientKey, was *openRecord) error {
	d.head.Codes = slices.Clone(d.head.Codes)
	d.noted = was.sealed.FieldVersion(fieldNote) > 0
	plain, err := key.OpenField(was.where, was.sealed, fieldValue)
	if err != nil || plain == nil {
		return err
	}
	return json.Unmarshal(plain, &d.had)
}

// apply makes of the draft what the patch says, and settles how closed that is:
// as its codes, its author's mark and, of an imported record, its source make it,
// whichever is strictest. It reports Invalid, and where.
func (d *recordDraft) apply(p med.Patch, fresh bool) error {
	status := d.head.Status
	for _, f := range p.Fields() {
		d.field(f, []byte(p[f].Reveal()), fresh)
	}
	if fresh && p[med.FieldKind] == "" {
		d.bad(med.FieldKind, "", "required")
	}
	if d.head.By != "" && d.empty() { // an imported one has its source
		d.bad(med.FieldCode, "", "a record needs a code, a value or a note")
	}
	if len(d.wrong) > 0 {
		return med.Invalid.New("").With(d.wrong...)
	}
	if fresh || d.head.Status != status {
		d.head.Active = fhir.OnProblemList(d.head.Kind, med.PHI(d.head.Status))
	}
	value := d.had
	if d.value != nil {
		value = *d.value
	}
	r := d.head.record("", "")
	if value.Code != nil {
		r.Value.Code = &codesOf([]sealedCode{*value.Code})[0]
	}
	floor := d.head.Mark
	if d.head.By == "" {
		floor = med.Strictest(floor, d.head.Sensitivity)
	}
	d.head.Sensitivity = med.Strictest(floor, fhir.Sensitivity(&r))
	return nil
}

// empty reports whether nothing would be left of what the record says.
func (d *recordDraft) empty() bool {
	value, noted := d.had, d.noted
	if d.value != nil {
		value = *d.value
	}
	if d.note != nil {
		noted = *d.note != ""
	}
	return len(d.head.Codes) == 0 && value == (sealedValue{}) && !noted
}

func (d *recordDraft) bad(f med.Field, below, reason string) {
	d.wrong = append(d.wrong, med.FieldError{Pointer: "/" + string(f) + below, Reason: reason})
}

func (d *recordDraft) field(f med.Field, raw []byte, fresh bool) {
	gone := string(raw) == "null"
	switch f {
	case med.FieldKind:
		d.kind(raw, fresh)
	case med.FieldCode:
		d.head.Codes = nil
		if !gone && json.Unmarshal(raw, &d.head.Codes) != nil {
			d.bad(f, "", "not a list of codes")
		}
		d.codes(f, d.head.Codes)
	case med.FieldStatus:
		d.head.Status = ""
		if !gone && (json.Unmarshal(raw, &d.head.Status) != nil || !statusShape.MatchString(d.head.Status)) {
			d.bad(f, "", "not a status: lower-case words with hyphens")
		}
		if d.head.Status == "entered-in-error" {
			d.bad(f, "", "delete the record instead")
		}
	case med.FieldEffective:
		d.effective(raw, gone)
	case med.FieldValue:
		d.setValue(raw, gone)
	case med.FieldNote:
		d.note = new(string)
		if !gone && (json.Unmarshal(raw, d.note) != nil || utf8.RuneCountInString(*d.note) > maxNote) {
			d.bad(f, "", "not a text, or too long")
		}
	case med.FieldSensitivity:
		d.mark(raw, gone)
	default: // author and source are the system's, and refused before
		d.bad(f, "", "not a field of a record")
	}
}

// kind is said once: a condition does not become an allergy.
func (d *recordDraft) kind(raw []byte, fresh bool) {
	var k med.Kind
	switch {
	case json.Unmarshal(raw, &k) != nil || !slices.Contains(med.Kinds, k):
		d.bad(med.FieldKind, "", "not a kind of record")
	case !fresh && k != d.head.Kind:
		d.bad(med.FieldKind, "", "a record keeps its kind")
	default:
		d.head.Kind = k
	}
}

func (d *recordDraft) codes(f med.Field, codes []sealedCode) {
	if len(codes) > maxCodes {
		d.bad(f, "", "too many codes")
	}
	for i, c := range codes {
		at := "/" + strconv.Itoa(i)
		if c.Code == "" && c.Display == "" {
			d.bad(f, at, "needs a code or a display")
		}
		if len(c.System) > maxDisplay || len(c.Code) > maxCode || utf8.RuneCountInString(c.Display) > maxDisplay {
			d.bad(f, at, "too long")
		}
	}
}

// effective merges the moments that were sent into those that were there.
func (d *recordDraft) effective(raw []byte, gone bool) {
	if gone {
		d.head.Start, d.head.End = "", ""
		return
	}
	var said map[string]*string
	if json.Unmarshal(raw, &said) != nil {
		d.bad(med.FieldEffective, "", "not a start and an end")
		return
	}
	for name, v := range said {
		if v == nil {
			v = new(string)
		}
		if _, ok := fhir.Instant(*v); *v != "" && !ok {
			d.bad(med.FieldEffective, "/"+name, "not a FHIR date or dateTime")
		}
		if name == "start" {
			d.head.Start = *v
		} else {
			d.head.End = *v
		}
	}
	start, ok1 := fhir.Instant(d.head.Start)
	end, ok2 := fhir.Instant(d.head.End)
	if ok1 && ok2 && len(d.head.Start) == len(d.head.End) && end.Before(start) {
		d.bad(med.FieldEffective, "/end", "before the start")
	}
}

// setValue merges what was sent into the value that was there. A value is one of
// three: who sends another one than there was, sends it in its place.
func (d *recordDraft) setValue(raw []byte, gone bool) {
	d.value = &sealedValue{}
	if gone {
		return
	}
	had, err := json.Marshal(d.had)
	merged, ok, mergeErr := mergedJSON(had, raw)
	var said map[string]json.RawMessage
	if err != nil || mergeErr != nil || !ok || json.Unmarshal(merged, d.value) != nil || json.Unmarshal(raw, &said) != nil {
		d.bad(med.FieldValue, "", "not a quantity, a text or a code")
		return
	}
	if d.value.parts() > 1 {
		d.value.keep(said)
	}
	if d.value.parts() != 1 {
		d.bad(med.FieldValue, "", "one of quantity, text, code")
	}
	if utf8.RuneCountInString(d.value.Quantity+d.value.Text) > maxValue {
		d.bad(med.FieldValue, "", "too long")
	}
	if d.value.Code != nil {
		d.codes(med.FieldValue, []sealedCode{*d.value.Code})
	}
}

// parts counts which of the three there are.
func (v *sealedValue) parts() (n int) {
	for _, there := range []bool{v.Quantity != "", v.Text != "", v.Code != nil} {
		if there {
			n++
		}
	}
	return n
}

// keep keeps what was named.
func (v *sealedValue) keep(named map[string]json.RawMessage) {
	if named["quantity"] == nil {
		v.Quantity = ""
	}
	if named["text"] == nil {
		v.Text = ""
	}
	if named["code"] == nil {
		v.Code = nil
	}
}

// mark is what the author says. Others can raise it and not lower it: they would
// open what somebody else closed. Of a record with a source nobody can: the source
// is what it was.
func (d *recordDraft) mark(raw []byte, gone bool) {
	m := med.SensitivityNormal
	if !gone && (json.Unmarshal(raw, &m) != nil || !slices.Contains(med.Sensitivities, m)) {
		d.bad(med.FieldSensitivity, "", "one of normal, restricted, psychotherapy")
		return
	}
	if !d.own {
		m = med.Strictest(m, d.head.Mark)
	}
	if d.head.By == "" {
		m = med.Strictest(m, d.head.Sensitivity)
	}
	d.head.Mark = m
}

// fields are what changes, as it is sealed.
func (d *recordDraft) fields() (map[string][]byte, error) {
	header, err := json.Marshal(d.head)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{fieldHeader: header}
	if d.value != nil {
		out[fieldValue] = nil
		if *d.value != (sealedValue{}) {
			if out[fieldValue], err = json.Marshal(d.value); err != nil {
				return nil, err
			}
		}
	}
	if d.note != nil {
		out[fieldNote] = nil
		if *d.note != "" {
			out[fieldNote] = []byte(*d.note)
		}
	}
	return out, nil
}
