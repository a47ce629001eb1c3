// SPDX-License-Identifier: Apache-2.0

package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/medirecord/medirecord/internal/auth"
	"github.com/medirecord/medirecord/internal/httpapi"
)

// drain is how long requests under way may take when the server stops.
const drain = 8 * time.Second

// Serve runs the API until the context ends, and tells ready the addresses of
// its two listeners. It refuses to start, with an error that says why, when a
// part of the door is away or unsafe.
func Serve(ctx context.Context, cfg *Config, log *slog.Logger, ready func(api, ops net.Addr)) error {
	relaxGC()
	proxies, err := prefixes("MEDIRECORD_TRUSTED_PROXIES", cfg.TrustedProxies)
	if err != nil {
		return err
	}
	door, err := OpenDoor(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer door.Close()
	metrics := prometheus.NewRegistry()
	if err := door.measure(metrics); err != nil {
		return err
	}
	api, err := httpapi.New(httpapi.Config{
		Auth: auth.New(door.Gate, door.Trail, time.Now), Chart: door.Chart, Log: log, Now: time.Now, Ready: door.ready,
		TrustedProxies: proxies, Version: Version, Dev: cfg.Dev(), Metrics: metrics,
	})
	if err != nil {
		return err
	}
	public, err := cfg.listenPublic(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = public.Close() }()
	ops, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cmp.Or(cfg.OpsListen, "127.0.0.1:8081"))
	if err != nil {
		return fmt.Errorf("MEDIRECORD_OPS_LISTEN: %w", err)
	}
	defer func() { _ = ops.Close() }()
	ready(public.Addr(), ops.Addr())
	return serveBoth(ctx, api.HTTPServer(ctx, api), api.Listener(public), api.HTTPServer(ctx, api.Ops()), api.Listener(ops))
}

func serveBoth(ctx context.Context, api *http.Server, public net.Listener, ops *http.Server, private net.Listener) error {
	errs := make(chan error, 2)
	go func() { errs <- api.Serve(public) }()
	go func() { errs <- ops.Serve(private) }()
	var first error
	select {
	case <-ctx.Done():
	case first = <-errs:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := errors.Join(api.Shutdown(end), ops.Shutdown(end)); err != nil {
		_ = api.Close()
		_ = ops.Close()
	}
	if first != nil && !errors.Is(first, http.ErrServerClosed) {
		return first
	}
	return nil
}

// listenPublic opens the API's listener: TLS 1.3, or loopback only.
func (c *Config) listenPublic(ctx context.Context) (net.Listener, error) {
	addr := cmp.Or(c.Listen, "127.0.0.1:8080")
	if (c.HTTPCert == "") != (c.HTTPKey == "") {
		return nil, errors.New("MEDIRECORD_HTTP_TLS_CERT and MEDIRECORD_HTTP_TLS_KEY belong together: set both or none")
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("MEDIRECORD_LISTEN: %w", err)
	}
	if c.HTTPCert == "" {
		if a, ok := ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
			_ = ln.Close()
			return nil, fmt.Errorf("MEDIRECORD_LISTEN %s would serve patient data in the clear: set MEDIRECORD_HTTP_TLS_CERT and MEDIRECORD_HTTP_TLS_KEY, or listen on loopback behind a proxy", addr)
		}
		return ln, nil
	}
	cert, err := tls.LoadX509KeyPair(c.HTTPCert, c.HTTPKey)
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("MEDIRECORD_HTTP_TLS_CERT: %w", err)
	}
	return tls.NewListener(ln, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}), nil
}

// ready says what the API needs and whether it has it.
func (d *Door) ready(ctx context.Context) []httpapi.Check {
	checks := []struct {
		name string
		ok   func() error
	}{
		{"sidecar", func() error { return d.Gate.Healthy(ctx) }},
		{"database", func() error { return d.DB.Ping(ctx) }},
		{"audit_trail", func() error { return d.Trail.Healthy(ctx) }},
		{"keys", func() error { return d.Keys.Healthy(ctx) }},
		{"clock", func() error {
			skew, err := d.DB.ClockSkew(ctx, time.Now)
			if err == nil && max(skew, d.Gate.Skew()) > skewRed {
				err = errors.New("skew")
			}
			return err
		}},
	}
	out := make([]httpapi.Check, len(checks))
	done := make(chan struct{}, len(checks))
	for i, c := range checks {
		go func() { // each has its own deadline: one that hangs does not hide the others
			defer func() { done <- struct{}{} }()
			err := c.ok()
			out[i] = httpapi.Check{Name: c.name, OK: err == nil}
			if err != nil {
				out[i].Detail = "unavailable"
			}
		}()
	}
	for range checks {
		<-done
	}
	return out
}

// measure registers the door's own metrics: numbers, never ids.
func (d *Door) measure(r *prometheus.Registry) error {
	counter := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
	}
	var err error
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		counter("medirecord_trail_entries_total", "Audit entries committed.", func() float64 { return float64(d.Trail.Stats().Appended) }),
		counter("medirecord_trail_failures_total", "Audit entries refused to their callers.", func() float64 { return float64(d.Trail.Stats().Failed) }),
		counter("medirecord_trail_flushes_total", "Inserts that carried audit entries.", func() float64 { return float64(d.Trail.Stats().Flushes) }),
		counter("medirecord_chart_suspects_total", "Charts found not to match their manifest, each as often as it was looked at.", func() float64 { return float64(d.Chart.Suspects()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "medirecord_trail_waiting", Help: "Audit entries waiting to be written."},
			func() float64 { return float64(d.Trail.Stats().Waiting) }),
	} {
		err = errors.Join(err, r.Register(c))
	}
	return err
}

// relaxGC lets the heap grow to five times what is live before it is collected:
// the live heap of a part is a few megabytes, and with Go's default the
// collector would run hundreds of times a second. GOGC still wins.
func relaxGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
