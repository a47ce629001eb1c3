// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"fmt"

	"github.com/medirecord/medirecord/internal/med"
)

// AAD says where a sealed field belongs. It is authenticated with the field,
// so a ciphertext opens nowhere else.
type AAD struct {
	Practice     med.PracticeID
	Patient      med.PatientID
	Table        string
	Record       string
	Field        string
	FieldVersion int64
	DEKVersion   int32
}

const (
	aadDomain = "mr-aad-1"
	// HeaderField is the field that the header key seals: what a store needs to
	// know of a record before it opens anything else of it.
	HeaderField = "header"
)

// AppendBinary appends the associated data to b: the domain tag and each
// string with its length before it (16 bits), then the field version (64 bits)
// and the data key's version (32 bits), all big endian. It reports ErrMisuse
// for an empty or overlong string and for a version below 1.
func (a AAD) AppendBinary(b []byte) ([]byte, error) {
	if err := a.check(); err != nil {
		return b, err
	}
	return a.append(b), nil
}

func (a *AAD) append(b []byte) []byte {
	row := a.row()
	return appendPlace(b, &row, a.Field, a.FieldVersion, a.DEKVersion)
}

func (a *AAD) row() RowID {
	return RowID{Practice: a.Practice, Patient: a.Patient, Table: a.Table, Record: a.Record}
}

// appendPlace is the one place that knows how associated data is written.
func appendPlace[S string | []byte](b []byte, id *RowID, field S, fieldVersion int64, dekVersion int32) []byte {
	b = appendText(b, aadDomain)
	b = id.append(b)
	b = appendText(b, field)
	b = appendInt64(b, fieldVersion)
	return appendInt32(b, dekVersion)
}

func (a *AAD) check() error {
	row := a.row()
	if err := row.check(); err != nil {
		return err
	}
	if !legalField(a.Field) {
		return fmt.Errorf("field name: %w", ErrMisuse)
	}
	if err := checkVersion("field version", a.FieldVersion); err != nil {
		return err
	}
	return checkVersion("data key version", int64(a.DEKVersion))
}

// RowID says which row it is.
type RowID struct {
	Practice med.PracticeID
	Patient  med.PatientID
	Table    string
	Record   string
}

func (id *RowID) append(b []byte) []byte {
	b = appendText(b, string(id.Practice))
	b = appendText(b, string(id.Patient))
	b = appendText(b, id.Table)
	return appendText(b, id.Record)
}

func (id *RowID) check() error {
	if err := checkText("practice id", string(id.Practice)); err != nil {
		return err
	}
	if err := checkText("patient id", string(id.Patient)); err != nil {
		return err
	}
	if err := checkText("table name", id.Table); err != nil {
		return err
	}
	return checkText("record id", id.Record)
}

// maxName is the longest field name.
const maxName = 64

// legalField reports whether a name is 1 to 64 of [a-z0-9_].
func legalField[S string | []byte](name S) bool {
	if len(name) == 0 || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}
