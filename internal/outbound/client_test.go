// SPDX-License-Identifier: Apache-2.0

package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// secure starts a TLS server and returns it with the pool that trusts it.
func secure(t *testing.T, h http.HandlerFunc) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are the point
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s, pool
}

func client(t *testing.T, cfg Config) *Client {
	t.Helper()
	c := New(cfg)
	t.Cleanup(c.Close)
	return c
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func TestGet(t *testing.T) {
	t.Parallel()

	t.Run("a listed range is reached over https", func(t *testing.T) {
		t.Parallel()
		s, pool := secure(t, hello)
		body, err := client(t, Config{Allow: loopback, RootCAs: pool}).Get(t.Context(), s.URL)
		if err != nil || string(body) != "hello" {
			t.Fatalf("got %q, %v; want hello", body, err)
		}
	})

	t.Run("loopback is refused unless listed", func(t *testing.T) {
		t.Parallel()
		var hits atomic.Int32
		s, pool := secure(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
		_, err := client(t, Config{RootCAs: pool}).Get(t.Context(), s.URL)
		if !errors.Is(err, ErrAddress) || hits.Load() != 0 {
			t.Fatalf("got %v and %d hits; want ErrAddress and none", err, hits.Load())
		}
	})

	t.Run("an unknown certificate authority is refused", func(t *testing.T) {
		t.Parallel()
		s, _ := secure(t, hello)
		var unknown x509.UnknownAuthorityError
		if _, err := client(t, Config{Allow: loopback, RootCAs: x509.NewCertPool()}).Get(t.Context(), s.URL); !errors.As(err, &unknown) {
			t.Fatalf("got %v; want an unknown authority", err)
		}
	})

	t.Run("TLS 1.1 is refused", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewUnstartedServer(http.HandlerFunc(hello))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11} //nolint:gosec // the server under test is the bad one
		s.StartTLS()
		t.Cleanup(s.Close)
		pool := x509.NewCertPool()
		pool.AddCert(s.Certificate())
		if _, err := client(t, Config{Allow: loopback, RootCAs: pool}).Get(t.Context(), s.URL); err == nil {
			t.Fatal("a TLS 1.1 server was believed")
		}
	})

	t.Run("TLS 1.3 is used when the server has it", func(t *testing.T) {
		t.Parallel()
		var version atomic.Uint32
		s, pool := secure(t, func(_ http.ResponseWriter, r *http.Request) { version.Store(uint32(r.TLS.Version)) })
		if _, err := client(t, Config{Allow: loopback, RootCAs: pool}).Get(t.Context(), s.URL); err != nil {
			t.Fatal(err)
		}
		if got := version.Load(); got != tls.VersionTLS13 {
			t.Fatalf("got version %x; want TLS 1.3", got)
		}
	})

	t.Run("a redirect is not followed", func(t *testing.T) {
		t.Parallel()
		var hits atomic.Int32
		s, pool := secure(t, func(w http.ResponseWriter, r *http.Request) {
			if hits.Add(1); r.URL.Path != "/there" {
				http.Redirect(w, r, "/there", http.StatusFound)
			}
		})
		_, err := client(t, Config{Allow: loopback, RootCAs: pool}).Get(t.Context(), s.URL+"/here")
		var status *StatusError
		if !errors.As(err, &status) || status.Code != http.StatusFound || hits.Load() != 1 {
			t.Fatalf("got %v after %d requests; want status 302 after one", err, hits.Load())
		}
	})

	t.Run("an answer other than 200 is an error", func(t *testing.T) {
		t.Parallel()
		s, pool := secure(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
		_, err := client(t, Config{Allow: loopback, RootCAs: pool}).Get(t.Context(), s.URL)
		var status *StatusError
		if !errors.As(err, &status) || status.Code != http.StatusInternalServerError {
			t.Fatalf("got %v; want status 500", err)
		}
	})

	t.Run("a body of the limit passes and one byte more is refused", func(t *testing.T) {
		t.Parallel()
		s, pool := secure(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", 100)+r.URL.Query().Get("more"))
		})
		c := client(t, Config{Allow: loopback, RootCAs: pool, MaxBody: 100})
		if body, err := c.Get(t.Context(), s.URL); err != nil || len(body) != 100 {
			t.Fatalf("got %d bytes, %v; want 100", len(body), err)
		}
		if _, err := c.Get(t.Context(), s.URL+"?more=x"); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("got %v; want ErrTooLarge", err)
		}
	})

	t.Run("a server that hangs in the body is left after the time limit", func(t *testing.T) {
		t.Parallel()
		over := make(chan struct{})
		s, pool := secure(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "begin")
			_ = http.NewResponseController(w).Flush()
			<-over // not the request's end: a handler that returns then ends the body well
		})
		t.Cleanup(func() { close(over) }) // before the server's own, which waits for the handler
		_, err := client(t, Config{Allow: loopback, RootCAs: pool, Timeout: 50 * time.Millisecond}).Get(t.Context(), s.URL)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("got %v; want a timeout", err)
		}
	})

	t.Run("a caller who gives up ends the fetch", func(t *testing.T) {
		t.Parallel()
		s, pool := secure(t, hello)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := client(t, Config{Allow: loopback, RootCAs: pool}).Get(ctx, s.URL); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v; want context.Canceled", err)
		}
	})

	t.Run("an error names the host and not the query", func(t *testing.T) {
		t.Parallel()
		_, err := client(t, Config{}).Get(t.Context(), "https://127.0.0.1:9/path?key=secret")
		if err == nil || !strings.Contains(err.Error(), "127.0.0.1:9") || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "path") {
			t.Fatalf("got %v; want the host only", err)
		}
	})
}

// The environment is the process's, so this test stands alone.
func TestProxyOfTheEnvironmentIsIgnored(t *testing.T) {
	s, pool := secure(t, hello)
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	// http.ProxyFromEnvironment never proxies loopback; a name that is not
	// loopback, led to the server by our own DNS, would go to the proxy.
	address := strings.Replace(s.URL, "127.0.0.1", "example.com", 1)
	c := client(t, Config{Allow: loopback, RootCAs: pool, resolver: answering(t, netip.MustParseAddr("127.0.0.1"))})
	if body, err := c.Get(t.Context(), address); err != nil || string(body) != "hello" {
		t.Fatalf("got %q, %v; want hello without the proxy", body, err)
	}
}

func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(hello))
	t.Cleanup(s.Close)

	t.Run("is refused outside dev, even where listed", func(t *testing.T) {
		t.Parallel()
		if _, err := client(t, Config{Allow: loopback}).Get(t.Context(), s.URL); !errors.Is(err, ErrURL) {
			t.Fatalf("got %v; want ErrURL", err)
		}
	})
	t.Run("reaches loopback in dev", func(t *testing.T) {
		t.Parallel()
		if body, err := client(t, Config{Dev: true}).Get(t.Context(), s.URL); err != nil || string(body) != "hello" {
			t.Fatalf("got %q, %v; want hello", body, err)
		}
	})
	t.Run("reaches nothing but loopback in dev, even where listed", func(t *testing.T) {
		t.Parallel()
		c := client(t, Config{Dev: true, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
		if _, err := c.Get(t.Context(), "http://192.0.2.1/"); !errors.Is(err, ErrAddress) {
			t.Fatalf("got %v; want ErrAddress", err)
		}
	})
}

func TestAddressesThatAreNotFetched(t *testing.T) {
	t.Parallel()
	c := client(t, Config{Dev: true})
	for _, address := range []string{
		"", "ftp://example.com/", "file:///etc/passwd", "https:", "https:///path", "https:example.com",
		"https://user:secret@example.com/", "HTTPS//example.com", "://", "https://exa mple.com/", "gopher://127.0.0.1/",
	} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			_, err := c.Get(t.Context(), address)
			if !errors.Is(err, ErrURL) || strings.Contains(err.Error(), "secret") {
				t.Fatalf("got %v; want ErrURL without the address", err)
			}
		})
	}
}

func TestNamesAreJudgedByWhereTheyLead(t *testing.T) {
	t.Parallel()
	for _, inner := range []string{"127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.64.0.1"} {
		t.Run("a public name that leads to "+inner+" is refused", func(t *testing.T) {
			t.Parallel()
			c := client(t, Config{resolver: answering(t, netip.MustParseAddr(inner))})
			if _, err := c.Get(t.Context(), "https://rebound.example.com/"); !errors.Is(err, ErrAddress) {
				t.Fatalf("got %v; want ErrAddress", err)
			}
		})
	}
	t.Run("the same name is reached once its range is listed", func(t *testing.T) {
		t.Parallel()
		s, pool := secure(t, hello)
		c := client(t, Config{Allow: loopback, RootCAs: pool, resolver: answering(t, netip.MustParseAddr("127.0.0.1"))})
		// example.com is a name in the test server's certificate.
		body, err := c.Get(t.Context(), strings.Replace(s.URL, "127.0.0.1", "example.com", 1))
		if err != nil || string(body) != "hello" {
			t.Fatalf("got %q, %v; want hello", body, err)
		}
	})
}

func TestPublic(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "2606:4700:4700::1111": true, "2a00:1450::1": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false, "127.0.0.1": false, "127.9.9.9": false,
		"169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "172.32.0.1": true, "192.168.1.1": false,
		"192.0.0.1": false, "198.18.0.1": false, "224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "fe80::1": false, "fc00::1": false, "fd12::1": false, "fec0::1": false, "ff02::1": false,
		"::ffff:10.0.0.1": false, "::ffff:8.8.8.8": true, "::10.0.0.1": false, "64:ff9b::a00:1": false,
		"2002:a00:1::1": false, "2001::1": false, "2001:db8::1": false, "fe80::1%eth0": false,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			address := net.JoinHostPort(text, "443")
			err := guard(func(ip netip.Addr) bool { return allowed(Config{}, ip) })(t.Context(), "tcp6", address, nil)
			if got := err == nil; got != want {
				t.Fatalf("got %v; want %v", got, want)
			}
		})
	}
	t.Run("a socket that is not TCP is refused", func(t *testing.T) {
		t.Parallel()
		for _, network := range []string{"udp4", "unix", ""} {
			if err := guard(func(netip.Addr) bool { return true })(t.Context(), network, "8.8.8.8:443", nil); !errors.Is(err, ErrAddress) {
				t.Fatalf("%s: got %v; want ErrAddress", network, err)
			}
		}
	})
}

// answering returns a resolver whose real DNS server says ip to every A question.
func answering(t *testing.T, ip netip.Addr) *net.Resolver {
	t.Helper()
	pc, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(dnsAnswer(buf[:n], ip), from)
		}
	}()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp4", pc.LocalAddr().String())
	}}
}

// dnsAnswer answers one question: an A record, or nothing for other types.
func dnsAnswer(q []byte, ip netip.Addr) []byte {
	end := 12
	for end < len(q) && q[end] != 0 {
		end += int(q[end]) + 1
	}
	end += 5 // root label, type, class
	isA := binary.BigEndian.Uint16(q[end-4:]) == 1
	out := append([]byte{}, q[:end]...)
	out[2], out[3] = 0x81, 0x80                     // an answer, recursion available
	copy(out[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0}) // one question
	if isA {
		out[7] = 1
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		out = append(out, ip.AsSlice()...)
	}
	return out
}

func TestPost(t *testing.T) {
	t.Parallel()

	t.Run("the answer comes back whatever its status", func(t *testing.T) {
		t.Parallel()
		s, pool := secure(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "text/x.tlog.size")
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, r.Method+" "+r.Header.Get("X-Kind")+" "+string(body))
		})
		got, err := client(t, Config{Allow: loopback, RootCAs: pool}).Post(t.Context(), s.URL, map[string]string{"X-Kind": "test"}, []byte("hello"))
		if err != nil || got.Status != http.StatusConflict || got.ContentType != "text/x.tlog.size" || string(got.Body) != "POST test hello" {
			t.Fatalf("got %+v, %v; want the conflict as it was said", got, err)
		}
	})

	t.Run("loopback is refused unless listed", func(t *testing.T) {
		t.Parallel()
		var hits atomic.Int32
		s, pool := secure(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
		_, err := client(t, Config{RootCAs: pool}).Post(t.Context(), s.URL, nil, nil)
		if !errors.Is(err, ErrAddress) || hits.Load() != 0 {
			t.Fatalf("got %v after %d requests; want ErrAddress after none", err, hits.Load())
		}
	})

	t.Run("plain http is refused outside dev", func(t *testing.T) {
		t.Parallel()
		if _, err := client(t, Config{}).Post(t.Context(), "http://127.0.0.1:1/", nil, nil); !errors.Is(err, ErrURL) {
			t.Fatalf("got %v; want ErrURL", err)
		}
	})

	t.Run("a redirect is an answer and not followed", func(t *testing.T) {
		t.Parallel()
		var hits atomic.Int32
		s, pool := secure(t, func(w http.ResponseWriter, r *http.Request) {
			hits.Add(1)
			http.Redirect(w, r, "/there", http.StatusTemporaryRedirect)
		})
		got, err := client(t, Config{Allow: loopback, RootCAs: pool}).Post(t.Context(), s.URL, nil, []byte("x"))
		if err != nil || got.Status != http.StatusTemporaryRedirect || hits.Load() != 1 {
			t.Fatalf("got %+v, %v after %d requests; want the 307 after one", got, err, hits.Load())
		}
	})

	t.Run("an answer above the limit is refused", func(t *testing.T) {
		t.Parallel()
		s, pool := secure(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 65)) })
		if _, err := client(t, Config{Allow: loopback, RootCAs: pool, MaxBody: 64}).Post(t.Context(), s.URL, nil, nil); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("got %v; want ErrTooLarge", err)
		}
	})
}

func TestTransport(t *testing.T) {
	t.Parallel()
	s, pool := secure(t, hello)
	get := func(cfg Config, address string) (*http.Response, error) {
		tr := NewTransport(cfg)
		t.Cleanup(tr.CloseIdleConnections)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tr.RoundTrip(req)
	}
	resp, err := get(Config{Allow: loopback, RootCAs: pool}, s.URL)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v; want hello", resp, err)
	}
	_ = resp.Body.Close()
	if _, err := get(Config{RootCAs: pool}, s.URL); !errors.Is(err, ErrAddress) {
		t.Errorf("got %v; want ErrAddress", err)
	}
	if _, err := get(Config{}, "http://127.0.0.1:1/"); !errors.Is(err, ErrURL) {
		t.Errorf("got %v; want ErrURL", err)
	}
}
