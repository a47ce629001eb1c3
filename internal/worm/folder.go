// SPDX-License-Identifier: Apache-2.0

package worm

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// folder is a folder of files that are readable and never written again. The
// file system does not lock them: that is for its mount, or for chattr +i.
type folder struct{ root *os.Root }

func openFolder(dir string) (*folder, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the folder of a sink is not there: make %s, or mount what it is on", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("folder of a sink: %w", err)
	}
	return &folder{root}, nil
}

func (f *folder) Close() error { return f.root.Close() }

// Put writes a file of another name whole, makes it durable, and only then
// gives it its name: whatever interrupts it, no half of an object is ever there.
func (f *folder) Put(ctx context.Context, name string, data []byte) error {
	if err := errors.Join(checkName(name), ctx.Err()); err != nil {
		return err
	}
	if err := f.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	tmp := path.Join(path.Dir(name), ".put-"+rand.Text())
	err := f.write(tmp, data)
	if err == nil {
		err = f.root.Link(tmp, name) // unlike a rename, it replaces nothing
	}
	if removed := f.root.Remove(tmp); !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	if errors.Is(err, fs.ErrExist) {
		err = f.same(name, data)
	}
	if err == nil {
		err = f.sync(path.Dir(name)) // also if it was there: who put it may have died before this
	}
	if err != nil {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	return nil
}

func (f *folder) write(name string, data []byte) error {
	w, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return errors.Join(err, w.Sync(), w.Close())
}

func (f *folder) same(name string, data []byte) error {
	there, err := f.read(name)
	if err == nil && !bytes.Equal(there, data) {
		return &ExistsError{There: there}
	}
	return err
}

// sync makes the folder's names durable, and its own name above it.
func (f *folder) sync(dir string) error {
	for {
		d, err := f.root.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
		if dir == "." {
			return nil
		}
		dir = path.Dir(dir)
	}
}

func (f *folder) read(name string) ([]byte, error) {
	r, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(io.LimitReader(r, maxObject))
}

func (f *folder) Get(ctx context.Context, name string) ([]byte, error) {
	if err := errors.Join(checkName(name), ctx.Err()); err != nil {
		return nil, err
	}
	data, err := f.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return data, nil
}

func (f *folder) List(ctx context.Context, prefix string) (out []string, err error) {
	err = fs.WalkDir(f.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if d.Type().IsRegular() && strings.HasPrefix(name, prefix) && checkName(name) == nil {
			out = append(out, name)
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}
