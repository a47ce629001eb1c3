// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Over TLS, and after a request that was served, the problem is as on a new and
// open line; and a TLS handshake that fails is one word in the log.
func TestEarlyProblemsOverTLS(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	keys := httptest.NewTLSServer(h) // for its certificate
	t.Cleanup(keys.Close)
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = h.HTTPServer(t.Context(), h)
	srv.Listener = h.Listener(tls.NewListener(srv.Listener, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: keys.TLS.Certificates}))
	srv.Start()
	t.Cleanup(srv.Close)
	dial := func(highest uint16) (*tls.Conn, error) {
		d := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MaxVersion: highest}} //nolint:gosec // its certificate is not what is asked
		c, err := d.DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = c.Close() })
		return c.(*tls.Conn), c.SetDeadline(time.Now().Add(time.Minute))
	}
	c, err := dial(0)
	if err != nil {
		t.Fatal(err)
	}
	const served = "GET /patients/p-001 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer clinician\r\n\r\n"
	answers := bufio.NewReader(c)
	for _, ask := range []struct {
		request string
		status  int
		part    string
	}{{served, 200, "Alice"}, {served, 200, "Alice"}, {"GET /patients/%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, `"code":"malformed"`}} {
		if _, err := io.WriteString(c, ask.request); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != ask.status || !strings.Contains(string(body), ask.part) {
			t.Errorf("got %d %s (%v), want %d %s", res.StatusCode, body, err, ask.status, ask.part)
		}
	}
	if n, err := answers.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("the line stays open after what could not be read")
	}
	if log := h.log.String(); !strings.Contains(log, `"code":"malformed"`) {
		t.Error("the refusal is not logged: " + log)
	}
	if _, err := dial(tls.VersionTLS12); err == nil {
		t.Fatal("TLS 1.2 was taken")
	}
	for i := 0; !strings.Contains(h.log.String(), "tls handshake failed"); i++ {
		if i == 6000 {
			t.Fatal("a failed handshake is not logged: " + h.log.String())
		}
		<-time.After(10 * time.Millisecond)
	}
}
