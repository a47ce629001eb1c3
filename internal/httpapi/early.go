// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// handshakeWithin is for how long a client may take to agree on TLS.
const handshakeWithin = 10 * time.Second

// Listener makes a problem of what net/http answers on its own, before any
// handler: a request that is no HTTP, headers beyond the limit, an expectation
// or a coding that it does not know. Serve the server of HTTPServer on it.
func (s *Server) Listener(l net.Listener) net.Listener { return listener{l, s} }

type listener struct {
	net.Listener
	room *Server
}

// Accept returns the next connection.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &line{Conn: c, room: l.room}, nil
}

// line is a connection that knows whether a handler has the request. What is
// written while none has it is net/http's own, and always an error.
type line struct {
	net.Conn
	room    *Server
	handled atomic.Bool
	greeted bool // TLS: the handshake is over; only the reader looks
}

// Read shakes hands first where the line is TLS: net/http does so for a
// *tls.Conn only.
func (l *line) Read(b []byte) (int, error) {
	if t, ok := l.Conn.(*tls.Conn); ok && !l.greeted {
		l.greeted = true
		ctx, cancel := context.WithTimeout(context.Background(), handshakeWithin) //nolint:forbidigo // nobody's request yet
		defer cancel()
		if err := t.HandshakeContext(ctx); err != nil {
			l.room.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "http server", slog.String("trouble", "tls handshake failed"))
			return 0, err
		}
	}
	return l.Conn.Read(b)
}

// Write sends what a handler answers as it is, and a problem in the place of
// anything else.
func (l *line) Write(b []byte) (int, error) {
	if l.handled.Load() {
		return l.Conn.Write(b)
	}
	if _, err := l.Conn.Write(l.room.early(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// CloseWrite tells the client that nothing follows, for net/http to wait until
// it has read that.
func (l *line) CloseWrite() error {
	if c, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// early is the problem that stands for an answer of net/http's own, as it goes
// over the wire.
func (s *Server) early(answer []byte) []byte {
	kind := med.Malformed
	if bytes.HasPrefix(answer, []byte("HTTP/1.1 431 ")) {
		kind = med.HeadersTooLarge
	}
	x := &exchange{id: s.cfg.NewID(), start: s.cfg.Now()}
	p := problemOf(kind.New(""), x.id)
	x.code = p.Code
	s.account(context.Background(), x, &answerWriter{status: p.Status}) //nolint:forbidigo // there is no request
	body, _ := json.Marshal(p)                                          // strings and numbers always marshal
	res := http.Response{
		StatusCode: p.Status, ProtoMajor: 1, ProtoMinor: 1, Header: p.headers, Close: true,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	secure(res.Header, x.id)
	res.Header.Set("Content-Type", problemType)
	var b strings.Builder
	_ = res.Write(&b) // a Builder takes everything
	return []byte(b.String())
}

type lineKey struct{}

// lines makes the server tell its lines when a handler has the request, and when
// it is done with it.
func lines(srv *http.Server) *http.Server {
	h := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l, ok := r.Context().Value(lineKey{}).(*line); ok {
			l.handled.Store(true)
		}
		h.ServeHTTP(w, r)
	})
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, lineKey{}, c) }
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		if l, ok := c.(*line); ok && state == http.StateIdle {
			l.handled.Store(false)
		}
	}
	return srv
}
