// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"cmp"
	"crypto/subtle"
	"fmt"
	"slices"
)

// SealRow seals every field and packs them into a row of that version. A nil
// value is a missing field and is left out; an empty one is kept. It reports
// ErrMisuse for another patient's row or an impossible name or version, and
// ErrTooLarge above MaxField, MaxFields or MaxRow.
func (k *PatientKey) SealRow(id RowID, version int64, fields map[string][]byte) ([]byte, error) {
	s, err := k.forRow(&id, version)
	if err != nil {
		return nil, err
	}
	parts, err := freshParts(nil, fields, version)
	if err != nil {
		return nil, err
	}
	return k.pack(s, &id, version, parts)
}

// UpdateRow packs a newer version of a row: changed fields are sealed afresh,
// removed ones and those changed to nil are left out, all others are carried
// over unopened. It checks the old row first, so that a tampered row never
// gets a good MAC. It reports as Check and SealRow do, and ErrMisuse for a
// version that is not newer or a field both changed and removed.
func (k *PatientKey) UpdateRow(id RowID, old *Row, version int64, changed map[string][]byte, removed ...string) ([]byte, error) {
	s, err := k.forRow(&id, version)
	if err != nil {
		return nil, err
	}
	if err := k.Check(id, old); err != nil {
		return nil, err
	}
	if version <= old.version {
		return nil, fmt.Errorf("row version %d after %d: %w", version, old.version, ErrMisuse)
	}
	for _, name := range removed {
		if changed[name] != nil {
			return nil, fmt.Errorf("field %s both changed and removed: %w", name, ErrMisuse)
		}
	}
	var parts []part
	for i := range old.fields {
		name := string(old.fields[i].name)
		if _, ok := changed[name]; ok || slices.Contains(removed, name) {
			continue
		}
		parts = append(parts, part{name: name, version: old.fields[i].version, sealed: old.fields[i].sealed})
	}
	if parts, err = freshParts(parts, changed, version); err != nil {
		return nil, err
	}
	return k.pack(s, &id, version, parts)
}

// Reseal packs a row that was sealed under another version of the same
// patient's data key anew under this one, with the row and field versions it
// had. Rotation of data keys needs it; nothing else opens a whole row.
func (k *PatientKey) Reseal(id RowID, from *PatientKey, old *Row) ([]byte, error) {
	s, err := k.forRow(&id, old.version)
	if err != nil {
		return nil, err
	}
	if err := from.Check(id, old); err != nil {
		return nil, err
	}
	parts := make([]part, 0, len(old.fields))
	defer func() {
		for _, p := range parts {
			clear(p.plain)
		}
	}()
	for i := range old.fields {
		f := &old.fields[i]
		plain, err := from.openField(&id, old, f)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{name: string(f.name), version: f.version, plain: plain})
	}
	return k.pack(s, &id, old.version, parts)
}

// Check reports whether the row is one that this key packed for this place:
// ErrTampered when a field was dropped, added, swapped or put back, or the row
// belongs elsewhere; ErrMisuse when it is under another version of the key.
func (k *PatientKey) Check(id RowID, r *Row) error {
	if r.checkedBy == k && r.checkedAs == id {
		return nil
	}
	s, err := k.forRow(&id, r.version)
	if err != nil {
		return err
	}
	if r.dekVersion != k.id.Version {
		return fmt.Errorf("%s %s is under data key %d, not %d: %w", id.Table, id.Record, r.dekVersion, k.id.Version, ErrMisuse)
	}
	w := s.scratch()
	defer s.scratches.Put(w)
	if subtle.ConstantTimeCompare(w.rowMAC(r, &id), r.mac[:]) != 1 {
		return fmt.Errorf("%s %s: %w", id.Table, id.Record, ErrTampered)
	}
	r.checkedBy, r.checkedAs = k, id
	return nil
}

// OpenField opens one field and no other. It returns nil for a field without a
// value, and an empty slice for an empty value. A row that was not checked yet
// is checked first.
func (k *PatientKey) OpenField(id RowID, r *Row, name string) ([]byte, error) {
	if err := k.Check(id, r); err != nil {
		return nil, err
	}
	f := r.field(name)
	if f == nil {
		return nil, nil
	}
	return k.openField(&id, r, f)
}

func (k *PatientKey) openField(id *RowID, r *Row, f *rowField) ([]byte, error) {
	s, err := k.secrets()
	if err != nil {
		return nil, err
	}
	return s.open(id, f, r.dekVersion)
}

// forRow returns the secrets when the row is this patient's.
func (k *PatientKey) forRow(id *RowID, version int64) (*patientSecrets, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	if err := checkVersion("row version", version); err != nil {
		return nil, err
	}
	if id.Practice != k.id.Practice || id.Patient != k.id.Patient {
		return nil, fmt.Errorf("key of patient %s for a row of patient %s: %w", k.id.Patient, id.Patient, ErrMisuse)
	}
	return k.secrets()
}

// part is a field on its way into a row: sealed already, or in clear.
type part struct {
	name    string
	version int64
	sealed  []byte
	plain   []byte
}

func (p *part) size() int {
	if p.sealed != nil {
		return len(p.sealed)
	}
	return gcmOverhead + len(p.plain)
}

// freshParts appends the fields that have a value, to be sealed at the version.
func freshParts(parts []part, fields map[string][]byte, version int64) ([]part, error) {
	parts = slices.Grow(parts, len(fields))
	for name, plain := range fields {
		if !legalField(name) {
			return nil, fmt.Errorf("field name: %w", ErrMisuse)
		}
		if len(plain) > MaxField {
			return nil, fmt.Errorf("field %s of %d bytes: %w", name, len(plain), ErrTooLarge)
		}
		if plain != nil {
			parts = append(parts, part{name: name, version: version, plain: plain})
		}
	}
	return parts, nil
}

// pack seals what is in clear, straight into the row's one buffer.
func (k *PatientKey) pack(s *patientSecrets, id *RowID, version int64, parts []part) ([]byte, error) {
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.name, b.name) })
	size := rowHead + macSize
	for i := range parts {
		size += fieldHead + len(parts[i].name) + parts[i].size()
	}
	if size > MaxRow || len(parts) > MaxFields {
		return nil, fmt.Errorf("row of %d fields, %d bytes: %w", len(parts), size, ErrTooLarge)
	}
	b := appendHead(make([]byte, 0, size), k.id.Version, version, len(parts))
	r := Row{dekVersion: k.id.Version, version: version, fields: make([]rowField, 0, len(parts))}
	for i := range parts {
		p := &parts[i]
		b = appendFieldHead(b, p.name, p.version, p.size())
		start := len(b)
		if p.sealed != nil {
			b = append(b, p.sealed...)
		} else {
			b = s.seal(b, id, p, k.id.Version)
		}
		r.fields = append(r.fields, rowField{name: []byte(p.name), version: p.version, sealed: b[start:]})
	}
	w := s.scratch()
	defer s.scratches.Put(w)
	return append(b, w.rowMAC(&r, id)...), nil
}

// rowMAC returns the row's MAC, valid until the scratch is used again.
func (w *scratch) rowMAC(r *Row, id *RowID) []byte {
	w.buf = r.appendMACInput(w.buf[:0], id)
	w.mac.Reset()
	_, _ = w.mac.Write(w.buf) // a hash does not fail
	return w.mac.Sum(w.sum[:0])
}
