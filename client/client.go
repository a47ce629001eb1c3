// SPDX-License-Identifier: Apache-2.0

// Package client calls the API of MediRecord. Its types and calls are made from
// docs/openapi.yaml (client.gen.go); here is how they are reached, and how a
// refusal becomes an error.
//
// An answer of patient data is PHI: it is the caller's to keep out of logs.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Config says how the API is reached. Server and Token are required.
type Config struct {
	Server string // https, or http on this machine
	// Token returns the bearer token of one request.
	Token func(ctx context.Context) (string, error)
	// HTTP sends the requests; by default one that waits 30 s and follows no redirect.
	HTTP *http.Client
}

// New returns a client. Its calls return a *Problem for what the API refuses. It
// reports an error for a server that a token may not be sent to.
func New(cfg Config) (*ClientWithResponses, error) {
	u, err := url.Parse(cfg.Server)
	if err != nil {
		return nil, fmt.Errorf("the address of the API: %w", err)
	}
	if cfg.Token == nil || u.Host == "" {
		return nil, errors.New("the client needs the address of the API, and a token")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !here(u.Hostname())) {
		return nil, fmt.Errorf("a token may not be sent to %s: use https", u.Scheme+"://"+u.Host)
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{
			Timeout:       30 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return NewClientWithResponses(strings.TrimSuffix(cfg.Server, "/"), WithHTTPClient(doer{cfg.HTTP}), WithRequestEditorFn(func(ctx context.Context, r *http.Request) error {
		token, err := cfg.Token(ctx)
		if err != nil {
			return fmt.Errorf("the token of a request: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	}))
}

// Bearer is the token that never changes.
func Bearer(token string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token, nil }
}

// here reports whether the name is of this machine, whoever answers for names.
func here(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Slug is the problem's name in docs/problems.md.
func (p *Problem) Slug() string {
	return string(p.Type)[strings.LastIndexByte(string(p.Type), '/')+1:]
}

// Error says what was refused and under which reference, and no value.
func (p *Problem) Error() string {
	return fmt.Sprintf("%d %s (%s): %s", p.Status, p.Code, p.Instance, p.Detail)
}

// problemLimit is more than any problem is long.
const problemLimit = 1 << 20

// doer makes an error of a refusal.
type doer struct{ client *http.Client }

// Do sends the request. It reports a *Problem for what the API refused, and
// another error for an answer above 399 that is none.
func (d doer) Do(r *http.Request) (*http.Response, error) {
	res, err := d.client.Do(r) //nolint:bodyclose // closed below, or by whoever reads it
	if err != nil || res.StatusCode < http.StatusBadRequest {
		return res, err
	}
	defer func() { _ = res.Body.Close() }()
	p := &Problem{}
	body, err := io.ReadAll(io.LimitReader(res.Body, problemLimit))
	if err == nil {
		err = json.Unmarshal(body, p)
	}
	if err != nil || p.Type == "" || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem+json") {
		return nil, fmt.Errorf("the API, or something before it, answered %d and said no more", res.StatusCode)
	}
	return nil, p
}
