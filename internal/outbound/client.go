// SPDX-License-Identifier: Apache-2.0

// Package outbound speaks to other servers for us: key sets, webhooks, witnesses.
// It speaks https only, follows no redirect, reads no proxy from the
// environment, never reads more than a set number of bytes, never waits
// longer than a set time, and never connects to an address inside our own
// networks unless that range is listed. It sends no cookie, and no credential
// that its caller did not give it.
package outbound

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// Config says how far the client may go. The zero value is the strict one.
type Config struct {
	// Dev permits loopback addresses, and plain http to them.
	Dev bool
	// Allow lists the non-public ranges that may be reached all the same: an
	// identity provider in the same network, for one.
	Allow []netip.Prefix
	// RootCAs replaces the system's certificate authorities.
	RootCAs *x509.CertPool
	// Certificate is ours, for servers that ask; read anew for each connection.
	Certificate func() (*tls.Certificate, error)
	// MaxBody is the largest answer in bytes; 0 means 1 MiB.
	MaxBody int64
	// ConnectTimeout bounds each of dialling and the TLS handshake; 0 means 2 s.
	ConnectTimeout time.Duration
	// Timeout bounds the whole fetch, the body included; 0 means 5 s.
	Timeout time.Duration

	resolver *net.Resolver // the tests' own DNS; nil is the system's
}

// The refusals. Each is found with errors.Is.
var (
	ErrURL      = errors.New("the address is not one this client fetches from")
	ErrAddress  = errors.New("the address is in a range that is not listed")
	ErrTooLarge = errors.New("the answer is larger than the limit")
)

// StatusError is an answer other than 200, a redirect included.
type StatusError struct{ Code int }

func (e *StatusError) Error() string { return fmt.Sprintf("status %d", e.Code) }

// Client fetches. It is safe for concurrent use.
type Client struct {
	https   *http.Client
	plain   *http.Client // only in dev, only loopback
	dialer  *tls.Dialer
	maxBody int64
}

// New returns a client that keeps to the config.
func New(cfg Config) *Client {
	cfg.MaxBody = positive(cfg.MaxBody, 1<<20)
	cfg.ConnectTimeout = positive(cfg.ConnectTimeout, 2*time.Second)
	cfg.Timeout = positive(cfg.Timeout, 5*time.Second)

	c := &Client{maxBody: cfg.MaxBody}
	may := func(ip netip.Addr) bool { return allowed(cfg, ip) }
	c.https = newHTTP(cfg, may)
	c.dialer = &tls.Dialer{NetDialer: newDialer(cfg, may), Config: newTLS(cfg)}
	if cfg.Dev {
		c.plain = newHTTP(cfg, netip.Addr.IsLoopback)
	}
	return c
}

func positive[T int64 | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

func newDialer(cfg Config, may func(netip.Addr) bool) *net.Dialer {
	return &net.Dialer{Timeout: cfg.ConnectTimeout, Resolver: cfg.resolver, ControlContext: guard(may)}
}

func newTLS(cfg Config) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs}
	if cfg.Certificate != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cfg.Certificate() }
	}
	return c
}

// Transport carries requests of another library, such as a store's own client,
// under the limits of the config: it refuses what Get refuses, but the size of
// an answer is the library's to limit.
type Transport struct{ c *Client }

// NewTransport returns a transport that keeps to the config.
func NewTransport(cfg Config) *Transport { return &Transport{New(cfg)} }

// RoundTrip sends the request. It reports ErrURL and ErrAddress as Get does.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	client, err := t.c.clientFor(r.URL)
	if err != nil {
		return nil, err
	}
	return client.Transport.RoundTrip(r)
}

// CloseIdleConnections drops the idle connections.
func (t *Transport) CloseIdleConnections() { t.c.Close() }

func newHTTP(cfg Config, may func(netip.Addr) bool) *http.Client {
	dialer := newDialer(cfg, may)
	return &http.Client{
		Timeout: cfg.Timeout,
		// A redirect would let the other server choose whom we call next.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil, // the environment must not see or change what we fetch
			DialContext:            dialer.DialContext,
			TLSClientConfig:        newTLS(cfg),
			TLSHandshakeTimeout:    cfg.ConnectTimeout,
			ResponseHeaderTimeout:  cfg.Timeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true, // so that the limit counts what was sent
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           16,
			MaxConnsPerHost:        4,
			IdleConnTimeout:        time.Minute,
		},
	}
}

// Get returns the body of the resource. It reports ErrURL for an address that
// is not https (in dev also http to loopback), ErrAddress when the name leads
// into a range that is not listed, a StatusError for anything but 200, and
// ErrTooLarge for a body above the limit. Errors name the host and nothing
// else of the address.
func (c *Client) Get(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, ErrURL // the parser's own error quotes the address
	}
	client, err := c.clientFor(u)
	if err != nil {
		return nil, err
	}
	body, err := c.fetch(ctx, client, u)
	if err != nil {
		return nil, fmt.Errorf("fetching from %s: %w", u.Host, withoutURL(err))
	}
	return body, nil
}

// Answer is what another server said to a Post.
type Answer struct {
	Status      int
	ContentType string
	RetryAfter  string // the header, as sent
	Body        []byte
}

// Post sends the body under the headers and returns the answer, whatever its
// status: what a refusal means is the caller's to say. It reports ErrURL,
// ErrAddress and ErrTooLarge as Get does, and follows no redirect either.
func (c *Client) Post(ctx context.Context, address string, header map[string]string, body []byte) (*Answer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, ErrURL // the parser's own error quotes the address
	}
	client, err := c.clientFor(u)
	if err != nil {
		return nil, err
	}
	answer, err := c.post(ctx, client, u, header, body)
	if err != nil {
		return nil, fmt.Errorf("sending to %s: %w", u.Host, withoutURL(err))
	}
	return answer, nil
}

func (c *Client) post(ctx context.Context, client *http.Client, u *url.URL, header map[string]string, body []byte) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, ErrURL
	}
	req.Header.Set("User-Agent", "medirecord")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	said, err := c.read(resp)
	if err != nil {
		return nil, err
	}
	return &Answer{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), RetryAfter: resp.Header.Get("Retry-After"), Body: said}, nil
}

// read returns the body, or ErrTooLarge.
func (c *Client) read(resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.maxBody+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > c.maxBody {
		return nil, ErrTooLarge
	}
	return body, nil
}

// clientFor returns the client for the scheme, or ErrURL.
func (c *Client) clientFor(u *url.URL) (*http.Client, error) {
	if u.Opaque != "" || u.Hostname() == "" || u.User != nil {
		return nil, ErrURL
	}
	switch {
	case u.Scheme == "https":
		return c.https, nil
	case u.Scheme == "http" && c.plain != nil:
		return c.plain, nil
	}
	return nil, ErrURL
}

func (c *Client) fetch(ctx context.Context, client *http.Client, u *url.URL) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, ErrURL
	}
	req.Header.Set("User-Agent", "medirecord")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	// A failed close after the body was read changes nothing for the caller.
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, &StatusError{Code: resp.StatusCode}
	}
	return c.read(resp)
}

// Dial returns a TLS connection, its handshake done, to host:port, for
// protocols that are not HTTP. It reports ErrAddress as Get does.
func (c *Client) Dial(ctx context.Context, address string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.dialer.NetDialer.Timeout)
	defer cancel()
	conn, err := c.dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	return conn.(*tls.Conn), nil //nolint:errcheck,forcetypeassert // what a tls.Dialer dials
}

// Close drops the idle connections.
func (c *Client) Close() {
	c.https.CloseIdleConnections()
	if c.plain != nil {
		c.plain.CloseIdleConnections()
	}
}

// withoutURL takes the cause out of the http client's error, which carries the
// whole address, its query included.
func withoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}
