// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/prometheus/client_golang/prometheus"
)

// statusGone is what is logged of a request whose client hung up; nobody is
// there to be sent it.
const statusGone = 499

// metrics count by route template, never by path: a path names a patient.
type metrics struct {
	seconds *prometheus.HistogramVec
	panics  prometheus.Counter
}

func newMetrics(r *prometheus.Registry, version string) (metrics, error) {
	m := metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "medirecord_http_request_duration_seconds",
			Help:    "Time to answer, by route template, method and class of status.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "method", "status"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "medirecord_http_panics_total",
			Help: "Requests that ended in a panic. Each disclosed nothing.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "medirecord_build_info", Help: "1, labelled with the version.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{m.seconds, m.panics, build} {
		if err := r.Register(c); err != nil {
			return metrics{}, fmt.Errorf("registering the metrics of the API: %w", err)
		}
	}
	return m, nil
}

// account writes the one log line of the request and counts it. Neither holds
// the path, the query, a header, or the client's address, which is an identifier
// of its own (45 CFR 164.514(b)(2)(i)(O)); the trail has it.
func (s *Server) account(ctx context.Context, x *exchange, a *answerWriter) {
	took := s.cfg.Now().Sub(x.start)
	status := a.status
	switch {
	case x.gone:
		status = statusGone
	case status == 0:
		status = http.StatusOK // what net/http sends for a handler that wrote nothing
	}
	route, method := x.route, methodLabel(x.method)
	if route == "" {
		route = "none"
	}
	s.metrics.seconds.WithLabelValues(route, method, class(status)).Observe(took.Seconds())
	if !s.cfg.Log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs, slog.String("request", x.id), slog.String("method", method), slog.String("route", route),
		slog.Int("status", status), slog.Duration("took", took))
	if x.code != "" {
		attrs = append(attrs, slog.String("code", x.code))
	}
	if x.event != "" {
		attrs = append(attrs, slog.String("audit_event", string(x.event)))
	}
	if x.from.TraceID != "" {
		attrs = append(attrs, slog.String("trace", x.from.TraceID))
	}
	s.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// methodLabel keeps made-up methods out of logs and metrics.
func methodLabel(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

func class(status int) string {
	switch status / 100 {
	case 1, 2, 3, 4, 5:
		return strconv.Itoa(status/100) + "xx"
	}
	return "other"
}

// shield is deferred: it turns a panic into a 500 that discloses nothing. What
// has begun to leave is cut off, so that half an answer never looks whole.
func (s *Server) shield(ctx context.Context, x *exchange, a *answerWriter) {
	v := recover()
	if v == nil {
		return
	}
	s.metrics.panics.Inc()
	// The value of a panic may hold anything; its type and the places cannot.
	s.cfg.Log.LogAttrs(ctx, slog.LevelError, "panic", slog.String("request", x.id), slog.String("route", x.route),
		slog.String("type", fmt.Sprintf("%T", v)), slog.String("stack", stack()))
	if a.status != 0 {
		panic(http.ErrAbortHandler) //nolint:forbidigo // how net/http is told to cut the connection
	}
	clearAnswer(a.Header(), x.id)
	p := problemOf(med.Internal.New(""), x.id)
	x.code = p.Code
	writeProblem(a, p)
}

// clearAnswer drops what the handler was about to send.
func clearAnswer(h http.Header, id string) {
	clear(h)
	secure(h, id)
}

// stack names the functions and lines that led here, without their arguments:
// the words of debug.Stack are memory.
func stack() string {
	pcs := make([]uintptr, 48)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var b strings.Builder
	for {
		f, more := frames.Next()
		fmt.Fprintf(&b, "%s:%d\n", f.Function, f.Line)
		if !more {
			return b.String()
		}
	}
}

// newErrorLog returns the logger for what net/http has to say. Its texts repeat
// addresses, names and panics, so only which kind of trouble it is gets through.
func newErrorLog(ctx context.Context, l *slog.Logger) *log.Logger {
	return log.New(troubleWriter{log: func(word string) {
		l.LogAttrs(ctx, slog.LevelWarn, "http server", slog.String("trouble", word))
	}}, "", 0)
}

type troubleWriter struct{ log func(word string) }

// troubles maps how net/http's message begins to the word for the log.
var troubles = []struct{ prefix, word string }{
	{"http: TLS handshake error", "tls handshake failed"},
	{"http: Accept error", "accept failed"},
	{"http: panic serving", "panic"},
	{"http2: panic serving", "panic"},
	{"http: superfluous response.WriteHeader", "status written twice"},
}

// Write logs one message of net/http.
func (t troubleWriter) Write(p []byte) (int, error) {
	word := "other"
	for _, k := range troubles {
		if strings.HasPrefix(string(p), k.prefix) {
			word = k.word
			break
		}
	}
	t.log(word)
	return len(p), nil
}
