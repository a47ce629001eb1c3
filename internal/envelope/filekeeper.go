// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// FileKeeper keeps keys as files in one directory, for development and tests.
// Every call reads the key's file afresh: take the directory away and the
// keeper is away. It is no secrets manager: who can read the directory as this
// user has the keys, and a file system may keep bytes that were overwritten.
type FileKeeper struct {
	// Timeout bounds every call, even one whose file system hangs. Set it before
	// the first call.
	Timeout time.Duration

	dir   string
	slots chan struct{} // one for each file operation under way, hung ones included
	open  func(name string, flag int, perm os.FileMode) (*os.File, error)
}

const (
	keeperTimeout = 2 * time.Second
	// keeperSlots bounds the goroutines that a hung file system can hold.
	keeperSlots = 32
	// maxWrap is the largest plaintext a keeper wraps: it wraps keys.
	maxWrap = 4096

	wrapFormat   = 1
	wrapHeader   = 1 + 4       // format, key version
	gcmOverhead  = 12 + 16     // nonce, tag
	keeperDomain = "mr-file-1" // of the associated data
)

// OpenFileKeeper opens the keeper in a directory. It reports
// med.KeysUnavailable when the directory is not there, is no directory, or is
// open to group or others. It makes nothing: a server must not start with an
// empty keeper in the place of the one that was lost.
func OpenFileKeeper(dir string) (*FileKeeper, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	return &FileKeeper{
		Timeout: keeperTimeout,
		dir:     dir,
		slots:   make(chan struct{}, keeperSlots),
		open:    os.OpenFile,
	}, nil
}

// InitFileKeeper makes the directory if need be, for its user only, and opens
// the keeper in it.
func InitFileKeeper(dir string) (*FileKeeper, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unavailable("making key directory: %w", err)
	}
	return OpenFileKeeper(dir)
}

// Dev says that this keeper is for development only.
func (k *FileKeeper) Dev() bool { return true }

// CreateKey makes version 1 of the key unless it has a version already. It
// reports ErrDestroyed for a name whose key was destroyed. After a timeout it
// may still take effect.
func (k *FileKeeper) CreateKey(ctx context.Context, name string) error {
	return k.change(ctx, name, k.create)
}

// DestroyKey overwrites and unlinks every version of the key and leaves a mark
// that keeps the name from being used again. It reports med.KeysUnavailable
// for a key that never was here: a slip of the pen must not pass for an erasure.
func (k *FileKeeper) DestroyKey(ctx context.Context, name string) error {
	return k.change(ctx, name, k.destroy)
}

// RotateKey adds a version, under which Wrap and Rewrap seal from then on.
func (k *FileKeeper) RotateKey(ctx context.Context, name string) error {
	return k.change(ctx, name, k.rotate)
}

func (k *FileKeeper) change(ctx context.Context, name string, f func(string) error) error {
	if err := checkKeyName(name); err != nil {
		return err
	}
	_, err := k.within(ctx, func() (versionedKey, error) { return versionedKey{}, f(name) })
	return err
}

// Wrap seals plain under the newest version of the key. It reports ErrTooLarge
// for more than 4 KiB.
func (k *FileKeeper) Wrap(ctx context.Context, name string, plain, aad []byte) ([]byte, error) {
	if len(plain) > maxWrap {
		return nil, fmt.Errorf("wrapping %d bytes: %w", len(plain), ErrTooLarge)
	}
	key, err := k.load(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	box, err := key.aead()
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	out := make([]byte, wrapHeader, wrapHeader+gcmOverhead+len(plain))
	out[0] = wrapFormat
	binary.BigEndian.PutUint32(out[1:], key.version)
	return box.Seal(out, nil, plain, keeperAAD(name, key.version, aad)), nil
}

// Unwrap opens what Wrap sealed, by the version it names.
func (k *FileKeeper) Unwrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	version, err := wrapVersion(wrapped)
	if err != nil {
		return nil, err
	}
	key, err := k.load(ctx, name, version)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	box, err := key.aead()
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	plain, err := box.Open(nil, nil, wrapped[wrapHeader:], keeperAAD(name, version, aad))
	if err != nil {
		return nil, fmt.Errorf("unwrapping under key %s: %w", name, ErrOpen)
	}
	return plain, nil
}

// Rewrap seals what was wrapped again under the newest version of the key.
func (k *FileKeeper) Rewrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	plain, err := k.Unwrap(ctx, name, wrapped, aad)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return k.Wrap(ctx, name, plain, aad)
}

func wrapVersion(wrapped []byte) (uint32, error) {
	if len(wrapped) < wrapHeader+gcmOverhead || len(wrapped) > wrapHeader+gcmOverhead+maxWrap || wrapped[0] != wrapFormat {
		return 0, fmt.Errorf("wrapped key: %w", ErrMalformed)
	}
	version := binary.BigEndian.Uint32(wrapped[1:])
	if version == 0 {
		return 0, fmt.Errorf("wrapped key: %w", ErrMalformed)
	}
	return version, nil
}

func keeperAAD(name string, version uint32, aad []byte) []byte {
	b := appendText(nil, keeperDomain)
	b = appendText(b, name)
	b = binary.BigEndian.AppendUint32(b, version)
	return append(b, aad...) // last, so its length needs no telling
}

type versionedKey struct {
	*Key
	version uint32
}

// load reads a version of the key; 0 means the newest.
func (k *FileKeeper) load(ctx context.Context, name string, version uint32) (versionedKey, error) {
	if err := checkKeyName(name); err != nil {
		return versionedKey{}, err
	}
	return k.within(ctx, func() (versionedKey, error) { return k.read(name, version) })
}

// within runs one file operation in a goroutine and waits for it no longer
// than ctx and Timeout allow. A hung file system cannot be waited for, so its
// goroutine is left behind; the slots bound how many there can be, and a key
// that comes too late is wiped.
func (k *FileKeeper) within(ctx context.Context, work func() (versionedKey, error)) (versionedKey, error) {
	ctx, cancel := context.WithTimeout(ctx, k.Timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return versionedKey{}, unavailable("key keeper: %w", err)
	}
	select {
	case k.slots <- struct{}{}:
	case <-ctx.Done():
		return versionedKey{}, unavailable("key keeper: %d operations are under way: %w", keeperSlots, ctx.Err())
	}
	type result struct {
		key versionedKey
		err error
	}
	done := make(chan result, 1)
	var settled atomic.Bool // by whoever is first: the work or the deadline
	go func() {
		key, err := work()
		<-k.slots
		if settled.CompareAndSwap(false, true) {
			done <- result{key, err}
			return
		}
		key.Wipe()
	}()
	select {
	case r := <-done:
		return r.key, r.err
	case <-ctx.Done():
		if settled.CompareAndSwap(false, true) {
			return versionedKey{}, unavailable("key keeper: %w", ctx.Err())
		}
		r := <-done
		return r.key, r.err
	}
}

var errLoose = errors.New("is open to group or others, want 0700 or 0600")
