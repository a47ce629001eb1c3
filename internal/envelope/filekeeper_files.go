// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The files of a FileKeeper: <name>.<version>.key holds 32 bytes,
// <name>.destroyed marks a key that must not come back. Key names hold no dot,
// so no name can be taken for another's file.
const (
	keySuffix  = ".key"
	tombSuffix = ".destroyed"
)

func (k *FileKeeper) keyPath(name string, version uint32) string {
	return filepath.Join(k.dir, name+"."+strconv.FormatUint(uint64(version), 10)+keySuffix)
}

func (k *FileKeeper) tombPath(name string) string {
	return filepath.Join(k.dir, name+tombSuffix)
}

func checkDir(dir string) error {
	info, err := os.Stat(dir) //nolint:gosec // the operator's own folder
	if err != nil {
		return unavailable("key directory: %w", err)
	}
	if !info.IsDir() {
		return unavailable("key directory: %w", syscall.ENOTDIR)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return unavailable("key directory %w", errLoose)
	}
	return nil
}

// read returns a version of the key from its file; 0 means the newest.
func (k *FileKeeper) read(name string, version uint32) (versionedKey, error) {
	dead, err := k.destroyed(name)
	if err != nil {
		return versionedKey{}, err
	}
	if dead {
		return versionedKey{}, fmt.Errorf("key %s: %w", name, ErrDestroyed)
	}
	if version == 0 {
		all, err := k.versions(name)
		if err != nil {
			return versionedKey{}, err
		}
		if len(all) == 0 {
			return versionedKey{}, k.absent(name, fs.ErrNotExist)
		}
		version = all[len(all)-1]
	}
	key, err := k.readFile(k.keyPath(name, version))
	if err != nil {
		return versionedKey{}, k.absent(name, fmt.Errorf("version %d: %w", version, err))
	}
	// A destruction marks before it overwrites: no mark now, so these were no
	// half-overwritten bytes.
	if dead, err = k.destroyed(name); err != nil || dead {
		key.Wipe()
		return versionedKey{}, cmp.Or(err, fmt.Errorf("key %s: %w", name, ErrDestroyed))
	}
	return versionedKey{key, version}, nil
}

// absent says why a key could not be read: it may have been destroyed since
// its mark was looked for.
func (k *FileKeeper) absent(name string, cause error) error {
	if dead, err := k.destroyed(name); err == nil && dead {
		return fmt.Errorf("key %s: %w", name, ErrDestroyed)
	}
	return unavailable("key %s: %w", name, cause)
}

// readFile reads 32 bytes from a regular file that only its user can read.
// O_NONBLOCK keeps a FIFO put in its place from holding the goroutine;
// O_NOFOLLOW keeps a link from leading elsewhere.
func (k *FileKeeper) readFile(path string) (*Key, error) {
	f, err := k.open(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only: nothing to lose
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() != KeySize {
		return nil, errors.New("is not a file of 32 bytes")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, errLoose
	}
	key := emptyKey()
	if _, err := io.ReadFull(f, key.cell.b[:]); err != nil {
		key.Wipe()
		return nil, err
	}
	if _, err := key.bytes(); err != nil {
		return nil, errors.New("holds zeros")
	}
	return key, nil
}

// destroyed reports whether the key's mark is there, having seen that the
// directory still is and is still closed.
func (k *FileKeeper) destroyed(name string) (bool, error) {
	if err := checkDir(k.dir); err != nil {
		return false, err
	}
	_, err := os.Lstat(k.tombPath(name))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, unavailable("key %s: %w", name, err)
	}
}

// versions lists the versions of a key that have a file, in order.
func (k *FileKeeper) versions(name string) ([]uint32, error) {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, unavailable("key directory: %w", err)
	}
	var all []uint32
	for _, e := range entries {
		middle, ok := strings.CutPrefix(e.Name(), name+".")
		if !ok {
			continue
		}
		digits, ok := strings.CutSuffix(middle, keySuffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != digits {
			continue
		}
		all = append(all, uint32(n))
	}
	slices.Sort(all)
	return all, nil
}

func (k *FileKeeper) create(name string) error {
	all, err := k.living(name)
	if err != nil || len(all) > 0 {
		return err
	}
	return k.add(name, 1)
}

func (k *FileKeeper) rotate(name string) error {
	all, err := k.living(name)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return unavailable("key %s: %w", name, fs.ErrNotExist)
	}
	last := all[len(all)-1]
	if last == math.MaxUint32 {
		return fmt.Errorf("key %s: no version after %d: %w", name, last, ErrMisuse)
	}
	return k.add(name, last+1)
}

// living lists the versions of a key that is not destroyed.
func (k *FileKeeper) living(name string) ([]uint32, error) {
	dead, err := k.destroyed(name)
	if err != nil {
		return nil, err
	}
	if dead {
		return nil, fmt.Errorf("key %s: %w", name, ErrDestroyed)
	}
	return k.versions(name)
}

// add makes a version's file. Somebody else making it at the same time is as
// good. The mark is looked for once more afterwards: a destruction that listed
// the files before ours was there has left its mark before that.
func (k *FileKeeper) add(name string, version uint32) error {
	key := randomKey()
	defer key.Wipe()
	if err := k.writeFile(k.keyPath(name, version), key.cell.b[:]); err != nil && !errors.Is(err, fs.ErrExist) {
		return unavailable("key %s: %w", name, err)
	}
	dead, err := k.destroyed(name)
	if err != nil {
		return err
	}
	if dead {
		return errors.Join(fmt.Errorf("key %s: %w", name, ErrDestroyed), k.destroy(name))
	}
	return nil
}

// destroy marks first: from then on no call uses the key, and a destruction
// that was cut short can be done again to the end.
func (k *FileKeeper) destroy(name string) error {
	dead, err := k.destroyed(name)
	if err != nil {
		return err
	}
	all, err := k.versions(name)
	if err != nil {
		return err
	}
	if !dead {
		if len(all) == 0 {
			return unavailable("destroying key %s: %w", name, fs.ErrNotExist)
		}
		if err := k.writeFile(k.tombPath(name), nil); err != nil && !errors.Is(err, fs.ErrExist) {
			return unavailable("destroying key %s: %w", name, err)
		}
		// A version may have been added between the list and the mark.
		if all, err = k.versions(name); err != nil {
			return err
		}
	}
	for _, version := range all {
		if err := k.shred(k.keyPath(name, version)); err != nil {
			return unavailable("destroying key %s version %d: %w", name, version, err)
		}
	}
	if err := syncDir(k.dir); err != nil {
		return unavailable("destroying key %s: %w", name, err)
	}
	return nil
}

// shred overwrites a file and unlinks it. What is no regular file holds no
// key and is unlinked only.
func (k *FileKeeper) shred(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		if err := k.overwrite(path); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (k *FileKeeper) overwrite(path string) error {
	f, err := k.open(path, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another destruction was here first
	}
	if err != nil {
		return err
	}
	var noise [KeySize]byte
	_, _ = rand.Read(noise[:])
	_, err = f.WriteAt(noise[:], 0)
	return errors.Join(err, f.Sync(), f.Close())
}

// writeFile makes a file that is there whole or not at all, and stays after a
// power cut. It reports fs.ErrExist when the name is taken: link, unlike
// rename, never replaces.
func (k *FileKeeper) writeFile(path string, content []byte) error {
	temp := filepath.Join(k.dir, ".new-"+rand.Text())
	f, err := k.open(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp) }() // left over, it is a key that nobody uses
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(temp, path); err != nil {
		return err
	}
	return syncDir(k.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
