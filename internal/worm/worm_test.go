// SPDX-License-Identifier: Apache-2.0

package worm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/medirecord/medirecord/internal/outbound"
)

func folderSink(t *testing.T) (Sink, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := Open("file://" + dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, dir
}

// writeOnce is what every sink promises.
func writeOnce(t *testing.T, s Sink) {
	t.Helper()
	ctx := t.Context()
	names := []string{"log.example%2Faudit%2F1/checkpoint/00000000000000000007", "log.example%2Faudit%2F1/tile/0/x001/234", "log.example%2Faudit%2F1/tile/0/x001/235.p/5"}
	for i, n := range names {
		if err := s.Put(ctx, n, fmt.Append(nil, "data ", i)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("the same again is fine", func(t *testing.T) {
		if err := s.Put(ctx, names[0], []byte("data 0")); err != nil {
			t.Error(err)
		}
	})
	t.Run("something else is refused, and what is there stays", func(t *testing.T) {
		for _, other := range []string{"data 1", "", "data 0 "} {
			err := s.Put(ctx, names[0], []byte(other))
			var taken *ExistsError
			if !errors.Is(err, ErrExists) || !errors.As(err, &taken) || string(taken.There) != "data 0" {
				t.Errorf("%q: got %v, want ErrExists with what is there", other, err)
			}
		}
		if got, err := s.Get(ctx, names[0]); err != nil || string(got) != "data 0" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("what was put is listed and read", func(t *testing.T) {
		got, err := s.List(ctx, "log.example%2Faudit%2F1/")
		if err != nil || !slices.Equal(got, names) {
			t.Errorf("got %v, %v, want %v", got, err, names)
		}
		got, err = s.List(ctx, "log.example%2Faudit%2F1/tile/0/x001/235")
		if err != nil || !slices.Equal(got, names[2:]) {
			t.Errorf("got %v, %v, want %v", got, err, names[2:])
		}
		if got, err = s.List(ctx, "another/"); err != nil || len(got) != 0 {
			t.Errorf("got %v, %v, want nothing", got, err)
		}
	})
	t.Run("what is not there is not found", func(t *testing.T) {
		for _, n := range []string{"another", names[0] + "1", "log.example%2Faudit%2F1/checkpoint/0000000000000000000"} {
			if _, err := s.Get(ctx, n); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: got %v, want ErrNotFound", n, err)
			}
		}
	})
	t.Run("an empty object and one with all bytes", func(t *testing.T) {
		all := make([]byte, 8192)
		for i := range all {
			all[i] = byte(i)
		}
		for n, data := range map[string][]byte{"empty": {}, "bytes": all} {
			if err := s.Put(ctx, n, data); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Get(ctx, n); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: got %d bytes, %v", n, len(got), err)
			}
		}
	})
	t.Run("of many at once one wins", func(t *testing.T) {
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				switch err := s.Put(ctx, "race", fmt.Append(nil, i)); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, ErrExists):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d won, want one", won.Load())
		}
	})
	t.Run("names that lead elsewhere are refused", func(t *testing.T) {
		for _, n := range []string{"", "/", "/etc/passwd", "a/../../b", "..", ".", "a//b", "a/", ".hidden", "a/.b", `a\b`, "a\nb", "ä", strings.Repeat("a", 201)} {
			_, err := s.Get(ctx, n)
			if put := s.Put(ctx, n, nil); !errors.Is(put, ErrName) || !errors.Is(err, ErrName) {
				t.Errorf("%q: got %v and %v, want ErrName", n, put, err)
			}
		}
	})
	t.Run("an ended context does nothing", func(t *testing.T) {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.Put(ended, "late", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestFolder(t *testing.T) {
	t.Parallel()
	s, dir := folderSink(t)
	writeOnce(t, s)
	t.Run("files are for reading, and nothing is left over", func(t *testing.T) {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil && (info.Mode().Perm() != 0o444 || strings.HasPrefix(d.Name(), ".")) {
				t.Errorf("%s has mode %o", name, info.Mode().Perm())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("a link does not lead out", func(t *testing.T) {
		outside := t.TempDir()
		if err := errors.Join(os.Symlink(outside, filepath.Join(dir, "out")), os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), "out/there", nil); err == nil {
			t.Error("it wrote outside")
		}
		if _, err := s.Get(t.Context(), "out/secret"); err == nil {
			t.Error("it read outside")
		}
	})
	t.Run("a full or closed place is an error, and no half is left", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), "file/below", []byte("x")); err == nil || errors.Is(err, ErrExists) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"", "/folder", "file://host/folder", "file:///folder?x=y", "file:relative", "file:///nowhere/at/all", "https://example",
		"s3:///prefix", "s3://bucket?retain=0d", "s3://bucket?retain=1y", "s3://bucket?retain=-1d", "s3://bucket?secret=hunter2",
		"s3://user:hunter2@bucket/", "s3://bucket?endpoint=http://s3.example", "s3://bucket?endpoint=https://s3.example/path",
		"s3://bucket/a/../b", "s3://bucket/%zz",
	} {
		if s, err := Open(address); err == nil {
			_ = s.Close()
			t.Errorf("%s: want it refused", address)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error quotes it: %v", address, err)
		}
	}
}

// TestBucket speaks to a real S3 server with object lock, versitygw of
// https://github.com/versity/versitygw, if it is on the PATH.
//
// Not parallel: it sets the environment for the credentials.
func TestBucket(t *testing.T) {
	program, err := exec.LookPath("versitygw")
	if err != nil {
		t.Skip("versitygw is not on the PATH: go install github.com/versity/versitygw/cmd/versitygw@latest")
	}
	address := startS3(t, program)
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
	admin, err := minio.New(address, &minio.Options{Creds: credentials.NewStaticV4("test", "secret-of-the-test", ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	for name, lock := range map[string]bool{"locked": true, "unlocked": false} {
		if err := admin.MakeBucket(t.Context(), name, minio.MakeBucketOptions{Region: "us-east-1", ObjectLocking: lock}); err != nil {
			t.Fatal(err)
		}
	}
	open := func(bucket string) Sink {
		t.Helper()
		s, err := Config{Outbound: outbound.Config{Dev: true}, Now: time.Now}.Open("s3://" + bucket + "/trail?region=us-east-1&retain=30d&endpoint=http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	s := open("locked")
	writeOnce(t, s)

	t.Run("nobody can take a version away, and what is put over it does not count", func(t *testing.T) {
		const name = "kept"
		if err := s.Put(t.Context(), name, []byte("first")); err != nil {
			t.Fatal(err)
		}
		key := "trail/" + name
		first, err := admin.StatObject(t.Context(), "locked", key, minio.StatObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		mode := first.Metadata.Get("X-Amz-Object-Lock-Mode")
		until, err := time.Parse(time.RFC3339, first.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		if err != nil || mode != "COMPLIANCE" || time.Until(until) < 29*24*time.Hour {
			t.Errorf("got %v until %v, %v; want compliance for 30 days", mode, until, err)
		}
		if err := admin.RemoveObject(t.Context(), "locked", key, minio.RemoveObjectOptions{VersionID: first.VersionID, GovernanceBypass: true}); err == nil {
			t.Error("the version could be removed")
		}
		shorter, compliance := time.Now().Add(time.Hour), minio.Compliance
		if err := admin.PutObjectRetention(t.Context(), "locked", key, minio.PutObjectRetentionOptions{VersionID: first.VersionID, Mode: &compliance, RetainUntilDate: &shorter, GovernanceBypass: true}); err == nil {
			t.Error("the lock could be shortened")
		}
		if _, err := admin.PutObject(t.Context(), "locked", key, strings.NewReader("forged"), 6, minio.PutObjectOptions{SendContentMd5: true}); err != nil {
			t.Logf("putting over it: %v", err) // the store may refuse it altogether
		}
		if err := admin.RemoveObject(t.Context(), "locked", key, minio.RemoveObjectOptions{}); err != nil { // a marker
			t.Logf("marking it deleted: %v", err)
		}
		if got, err := s.Get(t.Context(), name); err != nil || string(got) != "first" {
			t.Errorf("got %q, %v; want the first", got, err)
		}
		if got, err := s.List(t.Context(), name); err != nil || !slices.Equal(got, []string{name}) {
			t.Errorf("got %v, %v; want it listed", got, err)
		}
	})
	t.Run("a bucket without object lock is refused", func(t *testing.T) {
		if err := open("unlocked").Put(t.Context(), "x", []byte("x")); !errors.Is(err, ErrNotLocked) {
			t.Errorf("got %v, want ErrNotLocked", err)
		}
	})
	t.Run("a bucket that is not there is an error", func(t *testing.T) {
		if err := open("nowhere").Put(t.Context(), "x", []byte("x")); err == nil || errors.Is(err, ErrExists) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a private address that is not listed is not reached", func(t *testing.T) {
		s, err := Open("s3://locked?region=us-east-1&endpoint=https://" + address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		if err := s.Put(t.Context(), "x", nil); !errors.Is(err, outbound.ErrAddress) {
			t.Errorf("got %v, want ErrAddress", err)
		}
	})
}

// startS3 starts the server on folders of its own and returns its address.
func startS3(t *testing.T, program string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	data, versions := t.TempDir(), t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "--access", "test", "--secret", "secret-of-the-test", "--region", "us-east-1",
		"--port", address, "--quiet", "posix", "--versioning-dir", versions, data)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if err := <-ended; err == nil {
			t.Error("it ended before it was killed")
		}
	})
	for until := time.Now().Add(2 * time.Minute); ; {
		resp, err := http.Get("http://" + address + "/")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			return address
		}
		select {
		case err := <-ended:
			ended <- err
			if strings.Contains(said.String(), "xattr") {
				t.Skipf("versitygw cannot keep its data here: %s", said.String())
			}
			t.Fatalf("versitygw: %v: %s", err, said.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(until) {
			t.Fatalf("versitygw does not answer: %s", said.String())
		}
	}
}
