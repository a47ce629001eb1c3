// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
)

// A packed row, all numbers big endian:
//
//	format 1 · DEK version 4 · row version 8 · field count 2
//	per field, names ascending: name length 1 · name · field version 8 · sealed length 4 · sealed
//	MAC 32
const (
	rowFormat   = 1
	rowHead     = 1 + 4 + 8 + 2
	macSize     = sha256.Size
	fieldHead   = 1 + 8 + 4 // beside the name
	minFieldLen = fieldHead + 1 + gcmOverhead

	// MaxRow is the largest packed row.
	MaxRow = 16 << 20
	// MaxFields is how many fields a row may have.
	MaxFields = 64
)

// Row is a packed row, taken apart and not yet opened. It is not for
// concurrent use: it remembers who has checked it.
type Row struct {
	dekVersion int32
	version    int64
	fields     []rowField
	mac        [macSize]byte

	checkedBy *PatientKey
	checkedAs RowID
}

type rowField struct {
	name    []byte
	version int64
	sealed  []byte // nonce, ciphertext, tag
}

func (f *rowField) tag() []byte { return f.sealed[len(f.sealed)-16:] }

// ParseRow takes a packed row apart without copying it: b must not change
// afterwards. It reports ErrMalformed for anything that packing would not have
// made. What it returns is not authentic before PatientKey.Check.
func ParseRow(b []byte) (*Row, error) {
	if len(b) < rowHead+macSize || len(b) > MaxRow || b[0] != rowFormat {
		return nil, malformed("row head")
	}
	dek, version := binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint64(b[5:])
	count := int(binary.BigEndian.Uint16(b[13:]))
	body := b[rowHead : len(b)-macSize]
	if dek == 0 || dek > math.MaxInt32 || version == 0 || version > math.MaxInt64 {
		return nil, malformed("row version")
	}
	if count > MaxFields || count*minFieldLen > len(body) {
		return nil, malformed("row field count")
	}
	r := &Row{dekVersion: int32(dek), version: int64(version), fields: make([]rowField, 0, count)}
	copy(r.mac[:], b[len(b)-macSize:])
	var last []byte
	for range count {
		f, rest, err := parseField(body)
		if err != nil {
			return nil, err
		}
		if bytes.Compare(last, f.name) >= 0 {
			return nil, malformed("row field order")
		}
		if f.version > r.version {
			return nil, malformed("row field version")
		}
		r.fields = append(r.fields, f)
		last, body = f.name, rest
	}
	if len(body) != 0 {
		return nil, malformed("row end")
	}
	return r, nil
}

func parseField(b []byte) (rowField, []byte, error) {
	if len(b) < minFieldLen {
		return rowField{}, nil, malformed("row field")
	}
	n := int(b[0])
	if len(b) < fieldHead+n+gcmOverhead || !legalField(b[1:1+n]) {
		return rowField{}, nil, malformed("row field name")
	}
	name, b := b[1:1+n:1+n], b[1+n:]
	version, size := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	b = b[12:]
	if version == 0 || version > math.MaxInt64 {
		return rowField{}, nil, malformed("row field version")
	}
	if size < gcmOverhead || size > gcmOverhead+MaxField || uint64(size) > uint64(len(b)) {
		return rowField{}, nil, malformed("row field size")
	}
	return rowField{name: name, version: int64(version), sealed: b[:size:size]}, b[size:], nil
}

func malformed(what string) error { return fmt.Errorf("%s: %w", what, ErrMalformed) }

// DEKVersion is the version of the data key the row is sealed under: it says
// which key to load.
func (r *Row) DEKVersion() int32 { return r.dekVersion }

// Version is the version of the row.
func (r *Row) Version() int64 { return r.version }

// MAC names this very state of the row. The trail keeps it, so that a whole
// row put back to an older state can be told.
func (r *Row) MAC() [32]byte { return r.mac }

// Fields lists the names of the fields that have a value, ascending.
func (r *Row) Fields() []string {
	names := make([]string, len(r.fields))
	for i := range r.fields {
		names[i] = string(r.fields[i].name)
	}
	return names
}

// FieldVersion is the row version at which the field was last sealed; 0 when
// it has no value.
func (r *Row) FieldVersion(name string) int64 {
	if f := r.field(name); f != nil {
		return f.version
	}
	return 0
}

func (r *Row) field(name string) *rowField {
	for i := range r.fields {
		if string(r.fields[i].name) == name {
			return &r.fields[i]
		}
	}
	return nil
}

// appendHead appends the packed row up to its fields.
func appendHead(b []byte, dekVersion int32, version int64, count int) []byte {
	b = append(b, rowFormat)
	b = appendInt32(b, dekVersion)
	b = appendInt64(b, version)
	return binary.BigEndian.AppendUint16(b, uint16(count)) //nolint:gosec // at most MaxFields
}

// appendFieldHead appends what stands before a sealed field of that size.
func appendFieldHead(b []byte, name string, version int64, size int) []byte {
	b = append(b, byte(len(name)))
	b = append(b, name...)
	b = appendInt64(b, version)
	return binary.BigEndian.AppendUint32(b, uint32(size)) //nolint:gosec // at most MaxField and its overhead
}

const rowDomain = "mr-row-1"

// appendMACInput appends what the row's MAC is over: where the row belongs,
// its versions, and of each field its name, version and GCM tag. The tag
// stands for the ciphertext: of two values ever sealed for the same version,
// as after a rolled back transaction, only the one that was committed fits.
func (r *Row) appendMACInput(b []byte, id *RowID) []byte {
	b = appendText(b, rowDomain)
	b = id.append(b)
	b = appendHead(b, r.dekVersion, r.version, len(r.fields))
	for i := range r.fields {
		f := &r.fields[i]
		b = append(b, byte(len(f.name)))
		b = append(b, f.name...)
		b = appendInt64(b, f.version)
		b = append(b, f.tag()...)
	}
	return b
}
