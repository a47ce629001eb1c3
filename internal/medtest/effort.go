// SPDX-License-Identifier: Apache-2.0

package medtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/medirecord/medirecord/internal/envelope"
)

// Effort counts what a system does for its callers: each SQL statement by its
// text and the rows that come back, each question to the sidecar, each use of the
// key keeper. It is what the time of an answer is made of, without the clock.
// What requests send together (reads, entries of the trail) counts as the parts
// it is made of, so that it is no matter who met whom.
type Effort struct {
	mu     sync.Mutex
	counts map[string]int
}

func (e *Effort) add(what string, n int) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.counts == nil {
		e.counts = map[string]int{}
	}
	e.counts[what] += n
}

// Since returns the counts since it was asked last.
func (e *Effort) Since() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := maps.Clone(e.counts)
	clear(e.counts)
	return out
}

// tap returns the address under which the database at the URL is reached with
// its statements counted; the URL itself when nobody counts. The server must be
// reachable without TLS, as those of tests are.
func (e *Effort) tap(t testing.TB, database string) string {
	t.Helper()
	if e == nil {
		return database
	}
	cfg, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "tap") //nolint:usetesting // t.TempDir may be longer than a socket's name can be
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ln, err := (&net.ListenConfig{}).Listen(ctx, "unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() {
		stop()
		_ = ln.Close()
		group.Wait()
		_ = os.RemoveAll(dir)
	})
	group.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			group.Go(func() { e.between(ctx, client, cfg) })
		}
	})
	out := url.URL{
		Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password), Path: "/" + cfg.Database,
		RawQuery: url.Values{"host": {dir}, "port": {"5432"}, "sslmode": {"disable"}}.Encode(),
	}
	return patiently(out.String())
}

// between carries a connection, and reads along.
func (e *Effort) between(ctx context.Context, client net.Conn, cfg *pgx.ConnConfig) {
	defer func() { _ = client.Close() }()
	network, address := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	server, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(client.Close(), server.Close()) })
	defer stop()
	var group sync.WaitGroup
	group.Go(func() {
		defer func() { _ = client.Close() }()
		_ = messages(server, client, func(kind byte, _ []byte) {
			if kind == 'D' {
				e.add("rows", 1)
			}
		})
	})
	prepared := map[string]statement{}
	// The first message has no kind; it says who connects.
	if first, err := message(client, nil); err == nil {
		if _, err := server.Write(first); err == nil {
			_ = messages(client, server, func(kind byte, body []byte) { e.said(prepared, kind, body) })
		}
	}
	_ = server.Close()
	group.Wait()
}

// messages carries messages from one end to the other, each shown before it
// arrives: who has an answer can look what it took.
func messages(from io.Reader, to io.Writer, shown func(kind byte, body []byte)) error {
	for {
		var kind [1]byte
		if _, err := io.ReadFull(from, kind[:]); err != nil {
			return err
		}
		m, err := message(from, kind[:])
		if err != nil {
			return err
		}
		shown(kind[0], m[5:])
		if _, err := to.Write(m); err != nil {
			return err
		}
	}
}

// message reads the rest of a message: its length, which counts itself, and body.
func message(from io.Reader, kind []byte) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 4 || n > 1<<28 {
		return nil, errors.New("no message of PostgreSQL's protocol")
	}
	out := make([]byte, len(kind)+int(n))
	copy(out, kind)
	copy(out[len(kind):], size[:])
	_, err := io.ReadFull(from, out[len(kind)+4:])
	return out, err
}

// said notes what a client tells the server to do.
func (e *Effort) said(prepared map[string]statement, kind byte, body []byte) {
	switch kind {
	case 'P': // parse: a name and its statement
		name, rest, _ := bytes.Cut(body, []byte{0})
		sql, _, _ := bytes.Cut(rest, []byte{0})
		prepared[string(name)] = statement{short(string(sql)), 1 + strings.Count(string(sql), "),(")}
	case 'B': // bind: a portal, a statement's name, and parameters
		_, rest, _ := bytes.Cut(body, []byte{0})
		name, rest, _ := bytes.Cut(rest, []byte{0})
		s := prepared[string(name)]
		n := 1
		switch { // what shares a statement does so by chance
		case strings.HasPrefix(s.text, "select n, patient,"):
			n = elements(rest)
		case strings.HasPrefix(s.text, "insert into audit.event "):
			n = s.rows
		}
		e.add(s.text, n)
	case 'Q':
		sql, _, _ := bytes.Cut(body, []byte{0})
		if text := string(sql); !strings.HasPrefix(text, "-- ping") { // a pool looks after its connections when it likes
			e.add(text, 1)
		}
	}
}

// statement is what a name stands for: its text, short, and how many rows of
// VALUES it has.
type statement struct {
	text string
	rows int
}

// short is the statement's name, or its beginning on one line.
func short(sql string) string {
	if name, ok := strings.CutPrefix(sql, "-- name: "); ok {
		name, _, _ = strings.Cut(name, "\n")
		return name
	}
	line := strings.Join(strings.Fields(sql), " ")
	return line[:min(len(line), 200)]
}

// elements is the length of the first parameter, an array in binary form.
func elements(bind []byte) int {
	at := 2 + 2*int(binary.BigEndian.Uint16(bind)) + 2 // behind the formats, and how many parameters there are
	dims, n := binary.BigEndian.Uint32(bind[at+4:]), binary.BigEndian.Uint32(bind[at+4+12:])
	if dims != 1 {
		return 1
	}
	return int(n)
}

// keeper counts the uses of a key keeper.
type countedKeeper struct {
	envelope.Keeper
	effort *Effort
}

func (k countedKeeper) Wrap(ctx context.Context, name string, plain, aad []byte) ([]byte, error) {
	k.effort.add("keeper: wrap", 1)
	return k.Keeper.Wrap(ctx, name, plain, aad)
}

func (k countedKeeper) Unwrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	k.effort.add("keeper: unwrap", 1)
	return k.Keeper.Unwrap(ctx, name, wrapped, aad)
}

func (k countedKeeper) Rewrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	k.effort.add("keeper: rewrap", 1)
	return k.Keeper.Rewrap(ctx, name, wrapped, aad)
}
