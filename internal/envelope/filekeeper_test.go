// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

var errUnavailable = med.KeysUnavailable.New("")

func wrapOne(t testing.TB, k Keeper, name string) []byte {
	t.Helper()
	wrapped, err := k.Wrap(t.Context(), name, []byte("secret"), []byte("aad"))
	must(t, err)
	return wrapped
}

func TestFileKeeper(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	keeper := testKeeper(t)
	must(t, keeper.CreateKey(ctx, "root"))
	must(t, keeper.CreateKey(ctx, "other"))
	wrapped := wrapOne(t, keeper, "root")

	t.Run("what was wrapped comes back", func(t *testing.T) {
		t.Parallel()
		got, err := keeper.Unwrap(ctx, "root", wrapped, []byte("aad"))
		must(t, err)
		if string(got) != "secret" {
			t.Error("something else came back")
		}
	})
	t.Run("not with another aad, under another name, or altered", func(t *testing.T) {
		t.Parallel()
		_, err := keeper.Unwrap(ctx, "root", wrapped, []byte("aae"))
		wantErr(t, err, ErrOpen)
		_, err = keeper.Unwrap(ctx, "other", wrapped, []byte("aad"))
		wantErr(t, err, ErrOpen)
		eachFlip(wrapped, func(bit int, b []byte) {
			if _, err := keeper.Unwrap(ctx, "root", b, []byte("aad")); err == nil {
				t.Errorf("bit %d flipped and unwrapped", bit)
			}
		})
		for n := range wrapped {
			if _, err := keeper.Unwrap(ctx, "root", wrapped[:n], []byte("aad")); err == nil {
				t.Errorf("%d of %d bytes unwrapped", n, len(wrapped))
			}
		}
	})
	t.Run("not even when another name has the same key", func(t *testing.T) {
		t.Parallel()
		twins := testKeeper(t)
		must(t, twins.CreateKey(ctx, "a"))
		b, err := os.ReadFile(twins.keyPath("a", 1))
		must(t, err)
		must(t, os.WriteFile(twins.keyPath("b", 1), b, 0o600))
		_, err = twins.Unwrap(ctx, "b", wrapOne(t, twins, "a"), []byte("aad"))
		wantErr(t, err, ErrOpen)
	})
	t.Run("illegal names are refused by every call", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"", "Root", "../root", "a/b", "a.b", "a b", "a\x00", "ä", strings.Repeat("a", 65)} {
			_, e1 := keeper.Wrap(ctx, name, nil, nil)
			_, e2 := keeper.Unwrap(ctx, name, wrapped, nil)
			_, e3 := keeper.Rewrap(ctx, name, wrapped, nil)
			for _, err := range []error{keeper.CreateKey(ctx, name), keeper.DestroyKey(ctx, name), keeper.RotateKey(ctx, name), e1, e2, e3} {
				wantErr(t, err, ErrMisuse)
			}
		}
	})
	t.Run("an unknown key is unavailable, for destruction too", func(t *testing.T) {
		t.Parallel()
		_, err := keeper.Wrap(ctx, "nobody", nil, nil)
		wantErr(t, err, errUnavailable)
		_, err = keeper.Unwrap(ctx, "nobody", wrapped, []byte("aad"))
		wantErr(t, err, errUnavailable)
		wantErr(t, keeper.DestroyKey(ctx, "nobody"), errUnavailable)
		wantErr(t, keeper.RotateKey(ctx, "nobody"), errUnavailable)
	})
	t.Run("creating twice keeps the key", func(t *testing.T) {
		t.Parallel()
		k := testKeeper(t)
		must(t, k.CreateKey(ctx, "root"))
		w := wrapOne(t, k, "root")
		must(t, k.CreateKey(ctx, "root"))
		_, err := k.Unwrap(ctx, "root", w, []byte("aad"))
		must(t, err)
	})
	t.Run("creating at once from two processes makes one key", func(t *testing.T) {
		t.Parallel()
		k := testKeeper(t)
		twin, err := OpenFileKeeper(k.dir)
		must(t, err)
		var wg sync.WaitGroup
		wraps := make([][]byte, 16)
		for i := range wraps {
			wg.Go(func() {
				who := []*FileKeeper{k, twin}[i%2]
				if err := who.CreateKey(ctx, "root"); err != nil {
					t.Error(err)
				}
				w, err := who.Wrap(ctx, "root", []byte("secret"), []byte("aad"))
				if err != nil {
					t.Error(err)
				}
				wraps[i] = w
			})
		}
		wg.Wait()
		for _, w := range wraps {
			_, err := k.Unwrap(ctx, "root", w, []byte("aad"))
			must(t, err)
		}
	})
	t.Run("rotation: old wraps open, new ones and rewraps are under the new version", func(t *testing.T) {
		t.Parallel()
		k := testKeeper(t)
		must(t, k.CreateKey(ctx, "root"))
		old := wrapOne(t, k, "root")
		for range 10 { // past 9, where names sort otherwise than numbers
			must(t, k.RotateKey(ctx, "root"))
		}
		again, err := k.Rewrap(ctx, "root", old, []byte("aad"))
		must(t, err)
		for w, want := range map[*[]byte]uint32{&old: 1, &again: 11} {
			if got, err := wrapVersion(*w); got != want || err != nil {
				t.Errorf("got version %d, %v, want %d", got, err, want)
			}
			_, err := k.Unwrap(ctx, "root", *w, []byte("aad"))
			must(t, err)
		}
	})
	t.Run("a value too large is refused", func(t *testing.T) {
		t.Parallel()
		_, err := keeper.Wrap(ctx, "root", make([]byte, maxWrap+1), nil)
		wantErr(t, err, ErrTooLarge)
	})
	t.Run("files are for their user only and no temporary one is left", func(t *testing.T) {
		t.Parallel()
		k := testKeeper(t)
		must(t, k.CreateKey(ctx, "root"))
		entries, err := os.ReadDir(k.dir)
		must(t, err)
		if len(entries) != 1 || entries[0].Name() != "root.1.key" {
			t.Errorf("got %v, want root.1.key alone", entries)
		}
		info, err := entries[0].Info()
		must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("got mode %v, want 0600", info.Mode())
		}
	})
}

func TestDestroyedKeys(t *testing.T) {
	t.Parallel()
	ctx := t.Context()

	t.Run("are gone for every call and never come back", func(t *testing.T) {
		t.Parallel()
		k := testKeeper(t)
		must(t, k.CreateKey(ctx, "epoch-1"))
		must(t, k.CreateKey(ctx, "epoch-10"))
		must(t, k.RotateKey(ctx, "epoch-1"))
		wrapped := wrapOne(t, k, "epoch-1")
		must(t, k.DestroyKey(ctx, "epoch-1"))
		must(t, k.DestroyKey(ctx, "epoch-1"))
		_, e1 := k.Wrap(ctx, "epoch-1", nil, nil)
		_, e2 := k.Unwrap(ctx, "epoch-1", wrapped, []byte("aad"))
		_, e3 := k.Rewrap(ctx, "epoch-1", wrapped, []byte("aad"))
		for _, err := range []error{e1, e2, e3, k.CreateKey(ctx, "epoch-1"), k.RotateKey(ctx, "epoch-1")} {
			wantErr(t, err, ErrDestroyed)
			if errors.Is(err, errUnavailable) {
				t.Error("destroyed must not look like unavailable: nobody should wait for it")
			}
		}
		files, err := filepath.Glob(k.dir + "/epoch-1.*")
		must(t, err)
		if !slices.Equal(files, []string{k.tombPath("epoch-1")}) {
			t.Errorf("got %v, want the mark alone", files)
		}
		wrapOne(t, k, "epoch-10") // whose name begins alike
	})
	t.Run("are overwritten before they are unlinked", func(t *testing.T) {
		t.Parallel()
		k := testKeeper(t)
		must(t, k.CreateKey(ctx, "root"))
		// A second link keeps the bytes in sight.
		must(t, os.Link(k.keyPath("root", 1), k.dir+"/witness"))
		before, err := os.ReadFile(k.dir + "/witness")
		must(t, err)
		must(t, k.DestroyKey(ctx, "root"))
		after, err := os.ReadFile(k.dir + "/witness")
		must(t, err)
		if bytes.Equal(before, after) {
			t.Error("the key's bytes are still there")
		}
	})
	t.Run("a destruction cut short counts at once and is finished by the next", func(t *testing.T) {
		t.Parallel()
		k := testKeeper(t)
		must(t, k.CreateKey(ctx, "root"))
		wrapped := wrapOne(t, k, "root")
		must(t, os.WriteFile(k.tombPath("root"), nil, 0o600)) // killed after the mark
		_, err := k.Unwrap(ctx, "root", wrapped, []byte("aad"))
		wantErr(t, err, ErrDestroyed)
		must(t, k.DestroyKey(ctx, "root"))
		if _, err := os.Lstat(k.keyPath("root", 1)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want the file gone", err)
		}
	})
	t.Run("calls while it happens are served or told", func(t *testing.T) {
		t.Parallel()
		k := testKeeper(t)
		must(t, k.CreateKey(ctx, "root"))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					_, err := k.Wrap(ctx, "root", []byte("secret"), nil)
					if errors.Is(err, ErrDestroyed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		must(t, k.DestroyKey(ctx, "root"))
		wg.Wait()
	})
}

func TestTheKeeperTakenAway(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	type state struct {
		keeper  *FileKeeper
		wrapped []byte
	}
	for name, take := range map[string]func(t *testing.T, s state) (back func() error){
		"the directory is moved": func(t *testing.T, s state) func() error {
			must(t, os.Rename(s.keeper.dir, s.keeper.dir+".away"))
			return func() error { return os.Rename(s.keeper.dir+".away", s.keeper.dir) }
		},
		"the file is moved": func(t *testing.T, s state) func() error {
			file := s.keeper.keyPath("root", 1)
			must(t, os.Rename(file, s.keeper.dir+"/away"))
			return func() error { return os.Rename(s.keeper.dir+"/away", file) }
		},
		"the file is open to the group": func(t *testing.T, s state) func() error {
			file := s.keeper.keyPath("root", 1)
			must(t, os.Chmod(file, 0o640))
			return func() error { return os.Chmod(file, 0o600) }
		},
		"the directory is open to others": func(t *testing.T, s state) func() error {
			must(t, os.Chmod(s.keeper.dir, 0o705))
			return func() error { return os.Chmod(s.keeper.dir, 0o700) }
		},
		"the file is a link": func(t *testing.T, s state) func() error {
			file := s.keeper.keyPath("root", 1)
			must(t, os.Rename(file, s.keeper.dir+"/away"))
			must(t, os.Symlink(s.keeper.dir+"/away", file))
			return func() error { return os.Rename(s.keeper.dir+"/away", file) }
		},
		"the file is a FIFO": func(t *testing.T, s state) func() error {
			file := s.keeper.keyPath("root", 1)
			must(t, os.Rename(file, s.keeper.dir+"/away"))
			must(t, syscall.Mkfifo(file, 0o600))
			return func() error { return os.Rename(s.keeper.dir+"/away", file) }
		},
		"the file is a directory": func(t *testing.T, s state) func() error {
			file := s.keeper.keyPath("root", 1)
			must(t, os.Rename(file, s.keeper.dir+"/away"))
			must(t, os.Mkdir(file, 0o700))
			return func() error { return errors.Join(os.Remove(file), os.Rename(s.keeper.dir+"/away", file)) }
		},
		"the file is cut": func(t *testing.T, s state) func() error {
			file := s.keeper.keyPath("root", 1)
			b, err := os.ReadFile(file)
			must(t, err)
			must(t, os.Truncate(file, 31))
			return func() error { return os.WriteFile(file, b, 0o600) }
		},
		"the file holds zeros": func(t *testing.T, s state) func() error {
			file := s.keeper.keyPath("root", 1)
			b, err := os.ReadFile(file)
			must(t, err)
			must(t, os.WriteFile(file, make([]byte, KeySize), 0o600))
			return func() error { return os.WriteFile(file, b, 0o600) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := state{keeper: testKeeper(t)}
			must(t, s.keeper.CreateKey(ctx, "root"))
			s.wrapped = wrapOne(t, s.keeper, "root")
			back := take(t, s)
			began := time.Now()
			for range 2 * keeperSlots { // none of them may hold a slot
				_, err := s.keeper.Unwrap(ctx, "root", s.wrapped, []byte("aad"))
				wantErr(t, err, errUnavailable)
				_, err = s.keeper.Wrap(ctx, "root", []byte("secret"), nil)
				wantErr(t, err, errUnavailable)
			}
			if waited := time.Since(began); waited > keeperSlots*keeperTimeout/2 { // a quarter of them
				t.Errorf("waited %v", waited)
			}
			must(t, back())
			_, err := s.keeper.Unwrap(ctx, "root", s.wrapped, []byte("aad"))
			must(t, err)
		})
	}
	t.Run("a directory that is not there does not open, and is not made", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir() + "/keys"
		_, err := OpenFileKeeper(dir)
		wantErr(t, err, errUnavailable)
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want nothing there", err)
		}
	})
	t.Run("an open directory or a file in its place does not open", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o755))
		_, err := OpenFileKeeper(dir)
		wantErr(t, err, errUnavailable)
		_, err = InitFileKeeper(dir)
		wantErr(t, err, errUnavailable)
		must(t, os.WriteFile(dir+"/file", nil, 0o600))
		_, err = OpenFileKeeper(dir + "/file")
		wantErr(t, err, errUnavailable)
	})
}

// A FIFO opened the blocking way, with nobody writing, stands for a file
// system that hangs.
func TestAHungFileSystem(t *testing.T) {
	t.Parallel()
	keeper := testKeeper(t)
	must(t, keeper.CreateKey(t.Context(), "root"))
	wrapped := wrapOne(t, keeper, "root")

	fifo := t.TempDir() + "/fifo"
	must(t, syscall.Mkfifo(fifo, 0o600))
	var mu sync.Mutex
	hung, hang := 0, true
	keeper.Timeout = 50 * time.Millisecond
	keeper.open = func(name string, flag int, perm os.FileMode) (*os.File, error) {
		mu.Lock()
		now := hang
		if now {
			hung++
		}
		mu.Unlock()
		if now {
			f, err := os.OpenFile(fifo, os.O_RDONLY, 0)
			if err == nil {
				err = f.Close()
			}
			return nil, errors.Join(errors.New("hung"), err)
		}
		return os.OpenFile(name, flag, perm)
	}

	began := time.Now()
	_, err := keeper.Unwrap(t.Context(), "root", wrapped, []byte("aad"))
	wantErr(t, err, errUnavailable)
	wantErr(t, err, context.DeadlineExceeded)
	if waited := time.Since(began); waited < keeper.Timeout || waited > keeper.Timeout+time.Minute {
		t.Errorf("waited %v, want about %v", waited, keeper.Timeout)
	}
	// A caller's own, shorter deadline counts too.
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = keeper.Unwrap(ctx, "root", wrapped, []byte("aad"))
	wantErr(t, err, context.DeadlineExceeded)

	// Many more callers: each is answered, and only so many hang.
	var wg sync.WaitGroup
	for range 3 * keeperSlots {
		wg.Go(func() {
			_, err := keeper.Unwrap(t.Context(), "root", wrapped, []byte("aad"))
			wantErr(t, err, errUnavailable)
		})
	}
	wg.Wait()
	mu.Lock()
	got := hung
	hang = false
	mu.Unlock()
	if got > keeperSlots {
		t.Errorf("%d operations hang, want at most %d", got, keeperSlots)
	}

	// The file system wakes up: every slot is free again.
	keeper.Timeout = 10 * time.Second
	w, err := os.OpenFile(fifo, os.O_RDWR, 0) // lets every blocked open go on
	must(t, err)
	for range keeperSlots {
		_, err = keeper.Unwrap(t.Context(), "root", wrapped, []byte("aad"))
		must(t, err)
	}
	must(t, w.Close())
	for range keeperSlots {
		keeper.slots <- struct{}{} // waits for the last of those that hung
	}
}

func TestOpenKeeper(t *testing.T) {
	t.Parallel()
	dir := testKeeper(t).dir
	k, err := OpenKeeper("file://" + dir)
	must(t, err)
	if !IsDev(k) {
		t.Error("a file keeper must say that it is for development")
	}
	for name, tc := range map[string]struct{ url, want string }{
		"an unknown scheme":       {"vault://user:hunter2@host/transit", `unknown scheme "vault"; supported: file:///directory`},
		"no scheme":               {dir, "supported: file:///directory"},
		"nothing":                 {"", "supported: file:///directory"},
		"no URL":                  {"file://%zzhunter2", "not a URL"},
		"a relative path":         {"file://keys", "absolute path"},
		"an opaque path":          {"file:keys", "absolute path"},
		"another host":            {"file://hunter2" + dir, "no host"},
		"a query":                 {"file://" + dir + "?hunter2", "query"},
		"the root directory":      {"file:///", "absolute path"},
		"a directory not there":   {"file://" + dir + "/nowhere", "keys-unavailable"},
		"a password for the file": {"file://user:hunter2@" + dir, "no host"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, err := OpenKeeper(tc.url)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want something with %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error repeats the URL: %v", err)
			}
		})
	}
}
