// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"context"
	"fmt"

	"github.com/medirecord/medirecord/internal/med"
)

// DEKID names a version of a patient's data key.
type DEKID struct {
	Practice med.PracticeID
	Patient  med.PatientID
	Version  int32
}

func (id DEKID) check() error {
	if err := checkText("practice id", string(id.Practice)); err != nil {
		return err
	}
	if err := checkText("patient id", string(id.Patient)); err != nil {
		return err
	}
	return checkVersion("data key version", int64(id.Version))
}

// aad binds a wrapped data key, in either layer, to whom it is for and to the
// practice key under which its inner layer is.
func (id DEKID) aad(domain string, kekVersion int32) []byte {
	b := appendText(nil, domain)
	b = appendText(b, string(id.Practice))
	b = appendText(b, string(id.Patient))
	b = appendInt32(b, id.Version)
	return appendInt32(b, kekVersion)
}

const (
	innerDomain = "mr-dek-inner-1"
	outerDomain = "mr-dek-outer-1"
)

func (id DEKID) outerAAD(epoch int64, kekVersion int32) []byte {
	return appendInt64(id.aad(outerDomain, kekVersion), epoch)
}

// WrapDEK returns the data key as the key store holds it:
// wrap(E_epoch, wrap(KEK, DEK)). Both layers are needed to open it, so
// destroying the epoch key ends every copy that was not moved on, and a stolen
// epoch key opens nothing without the practice's. It makes one keeper call and
// is safe for concurrent use.
func WrapDEK(ctx context.Context, keeper Keeper, epoch int64, kek *KEK, dek *Key, id DEKID) ([]byte, error) {
	box, err := kek.boxFor(id)
	if err != nil {
		return nil, err
	}
	b, err := dek.bytes()
	if err != nil {
		return nil, err
	}
	inner := box.Seal(nil, nil, b, id.aad(innerDomain, kek.Version()))
	wrapped, err := keeper.Wrap(ctx, EpochKey(epoch), inner, id.outerAAD(epoch, kek.Version()))
	if err != nil {
		return nil, fmt.Errorf("wrapping key of patient %s: %w", id.Patient, err)
	}
	return wrapped, nil
}

// UnwrapDEK opens what WrapDEK returned for the same epoch, practice key and
// id. It reports ErrOpen when either layer is another's.
func UnwrapDEK(ctx context.Context, keeper Keeper, epoch int64, kek *KEK, id DEKID, wrapped []byte) (*Key, error) {
	box, err := kek.boxFor(id)
	if err != nil {
		return nil, err
	}
	inner, err := keeper.Unwrap(ctx, EpochKey(epoch), wrapped, id.outerAAD(epoch, kek.Version()))
	if err != nil {
		return nil, fmt.Errorf("unwrapping key of patient %s: %w", id.Patient, err)
	}
	b, err := box.Open(nil, nil, inner, id.aad(innerDomain, kek.Version()))
	if err != nil {
		return nil, fmt.Errorf("unwrapping key of patient %s under practice key %d: %w", id.Patient, kek.Version(), ErrOpen)
	}
	key, err := keyFrom(b)
	if err != nil {
		return nil, fmt.Errorf("unwrapping key of patient %s: %w", id.Patient, err)
	}
	return key, nil
}

// MoveDEK takes a wrapped data key from one epoch to another. The inner layer
// stays closed, so the epoch job needs no practice key and sees no data key.
// Moving within an epoch takes it to the newest version of the epoch's key.
func MoveDEK(ctx context.Context, keeper Keeper, from, to int64, id DEKID, kekVersion int32, wrapped []byte) ([]byte, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	inner, err := keeper.Unwrap(ctx, EpochKey(from), wrapped, id.outerAAD(from, kekVersion))
	if err != nil {
		return nil, fmt.Errorf("moving key of patient %s from epoch %d: %w", id.Patient, from, err)
	}
	moved, err := keeper.Wrap(ctx, EpochKey(to), inner, id.outerAAD(to, kekVersion))
	if err != nil {
		return nil, fmt.Errorf("moving key of patient %s to epoch %d: %w", id.Patient, to, err)
	}
	return moved, nil
}

// CreatePatientKey makes a fresh data key, and returns it ready for use (store
// its Commitment) and as the key store holds it: wrapped.
func CreatePatientKey(ctx context.Context, keeper Keeper, epoch int64, kek *KEK, id DEKID) (*PatientKey, []byte, error) {
	dek := NewDEK()
	defer dek.Wipe()
	wrapped, err := WrapDEK(ctx, keeper, epoch, kek, dek, id)
	if err != nil {
		return nil, nil, err
	}
	k, err := NewPatientKey(dek, id)
	if err != nil {
		return nil, nil, err
	}
	return k, wrapped, nil
}

// OpenPatientKey unwraps a patient's data key, checks it against the
// commitment stored beside it, and returns it ready for use.
func OpenPatientKey(ctx context.Context, keeper Keeper, epoch int64, kek *KEK, id DEKID, wrapped, commitment []byte) (*PatientKey, error) {
	dek, err := UnwrapDEK(ctx, keeper, epoch, kek, id, wrapped)
	if err != nil {
		return nil, err
	}
	defer dek.Wipe()
	return LoadPatientKey(dek, id, commitment)
}
