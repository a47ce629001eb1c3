// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"
)

// CommitmentSize is the length of a data key's commitment in bytes.
const CommitmentSize = 32

// MaxField is the largest plaintext that one field may hold.
const MaxField = 8 << 20

// Labels under which HKDF derives from a data key.
const (
	labelField  = "mr/field/v1"
	labelHeader = "mr/header/v1"
	labelMAC    = "mr/mac/v1"
	labelCommit = "mr/commit/v1"
)

// PatientKey seals and opens the rows of one patient under one version of
// their data key. It is safe for concurrent use and prints as [key].
type PatientKey struct {
	hidden
	id         DEKID
	commitment [CommitmentSize]byte
	live       atomic.Pointer[patientSecrets]
}

// patientSecrets is what HKDF made of a data key, ready for use.
type patientSecrets struct {
	field, header cipher.AEAD
	mac           *Key
	scratches     sync.Pool // of *scratch
}

// scratch is what one call needs and the next can use again.
type scratch struct {
	mac hash.Hash
	buf []byte
	sum [sha256.Size]byte
}

func (s *patientSecrets) scratch() *scratch {
	if w, ok := s.scratches.Get().(*scratch); ok {
		return w
	}
	return &scratch{mac: hmac.New(sha256.New, s.mac.cell.b[:]), buf: make([]byte, 0, 512)}
}

// NewPatientKey derives a patient's key from a fresh data key. The data key
// may be wiped afterwards.
func NewPatientKey(dek *Key, id DEKID) (*PatientKey, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	keys, err := dek.kin(labelField, labelHeader, labelMAC, labelCommit)
	if err != nil {
		return nil, fmt.Errorf("key of patient %s: %w", id.Patient, err)
	}
	field, header, mac, commit := keys[0], keys[1], keys[2], keys[3]
	defer wipeAll([]*Key{field, header, commit})
	s := &patientSecrets{mac: mac}
	if s.field, err = field.aead(); err != nil {
		return nil, err
	}
	if s.header, err = header.aead(); err != nil {
		return nil, err
	}
	k := &PatientKey{id: id, commitment: *commit.cell.b}
	k.live.Store(s)
	return k, nil
}

// LoadPatientKey is NewPatientKey for a data key that was in use before. It
// reports ErrCommitment when the key is not the one that the commitment,
// stored beside it, was made from: nothing is opened under such a key.
func LoadPatientKey(dek *Key, id DEKID, commitment []byte) (*PatientKey, error) {
	k, err := NewPatientKey(dek, id)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(k.commitment[:], commitment) != 1 {
		k.Forget()
		return nil, fmt.Errorf("key of patient %s version %d: %w", id.Patient, id.Version, ErrCommitment)
	}
	return k, nil
}

// ID names the data key.
func (k *PatientKey) ID() DEKID { return k.id }

// Commitment is stored beside the wrapped data key. It tells nothing of the key.
func (k *PatientKey) Commitment() []byte { return append([]byte(nil), k.commitment[:]...) }

// Forget drops the key. Calls that have begun finish; later ones report
// ErrForgotten.
func (k *PatientKey) Forget() { k.live.Store(nil) }

func (k *PatientKey) secrets() (*patientSecrets, error) {
	s := k.live.Load()
	if s == nil {
		return nil, ErrForgotten
	}
	return s, nil
}

// Seal seals one field: a random nonce, the ciphertext and its tag. It reports
// ErrMisuse for another patient's AAD and ErrTooLarge above MaxField.
func (k *PatientKey) Seal(a AAD, plain []byte) ([]byte, error) {
	s, err := k.forPlace(&a)
	if err != nil {
		return nil, err
	}
	if len(plain) > MaxField {
		return nil, fmt.Errorf("sealing a field of %d bytes: %w", len(plain), ErrTooLarge)
	}
	p := part{name: a.Field, version: a.FieldVersion, plain: plain}
	row := a.row()
	return s.seal(make([]byte, 0, p.size()), &row, &p, a.DEKVersion), nil
}

// Open opens what Seal sealed for the same place. It reports ErrOpen for
// anything else. An empty value opens as empty, never as nil.
func (k *PatientKey) Open(a AAD, sealed []byte) ([]byte, error) {
	s, err := k.forPlace(&a)
	if err != nil {
		return nil, err
	}
	if len(sealed) < gcmOverhead || len(sealed) > gcmOverhead+MaxField {
		return nil, malformed("sealed field")
	}
	row := a.row()
	return s.open(&row, &rowField{name: []byte(a.Field), version: a.FieldVersion, sealed: sealed}, a.DEKVersion)
}

// forPlace returns the secrets when the place is this patient's.
func (k *PatientKey) forPlace(a *AAD) (*patientSecrets, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if a.Practice != k.id.Practice || a.Patient != k.id.Patient || a.DEKVersion != k.id.Version {
		return nil, fmt.Errorf("key of patient %s version %d for a field of patient %s version %d: %w",
			k.id.Patient, k.id.Version, a.Patient, a.DEKVersion, ErrMisuse)
	}
	return k.secrets()
}

// seal appends the sealed field to dst.
func (s *patientSecrets) seal(dst []byte, id *RowID, p *part, dekVersion int32) []byte {
	w := s.scratch()
	defer s.scratches.Put(w)
	w.buf = appendPlace(w.buf[:0], id, p.name, p.version, dekVersion)
	box := s.field
	if p.name == HeaderField {
		box = s.header
	}
	return box.Seal(dst, nil, p.plain, w.buf)
}

// open opens a field. Its one allocation is the value.
func (s *patientSecrets) open(id *RowID, f *rowField, dekVersion int32) ([]byte, error) {
	w := s.scratch()
	defer s.scratches.Put(w)
	w.buf = appendPlace(w.buf[:0], id, f.name, f.version, dekVersion)
	box := s.field
	if string(f.name) == HeaderField {
		box = s.header
	}
	plain, err := box.Open(make([]byte, 0, len(f.sealed)-gcmOverhead), nil, f.sealed, w.buf)
	if err != nil {
		return nil, fmt.Errorf("opening field %s of %s %s: %w", f.name, id.Table, id.Record, ErrOpen)
	}
	return plain, nil
}
