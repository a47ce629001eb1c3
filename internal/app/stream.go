// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/siem"
	"github.com/medirecord/medirecord/internal/stream"
	"github.com/medirecord/medirecord/internal/trail"
)

// streamFile is MEDIRECORD_STREAM_FILE: where the sealed trail is streamed to.
type streamFile struct {
	Source struct {
		Host string `yaml:"host"` // "": the machine's name
		URL  string `yaml:"url"`  // under which the installation is known
	} `yaml:"source"`
	Sinks []streamSink `yaml:"sinks"`
}

type streamSink struct {
	Name        string        `yaml:"name"`
	Kind        stream.Kind   `yaml:"kind"`    // syslog, https, otlp
	Address     string        `yaml:"address"` // host:port of syslog
	URL         string        `yaml:"url"`     // of https and otlp
	Format      siem.Format   `yaml:"format"`  // medirecord, fhir, atna; "": medirecord
	CA          string        `yaml:"ca"`      // PEM; "": the system's authorities
	Cert        string        `yaml:"cert"`
	Key         string        `yaml:"key"`
	HMACKeyFile string        `yaml:"hmac_key_file"`
	TokenFile   string        `yaml:"token_file"`
	Batch       int           `yaml:"batch"`
	Settle      time.Duration `yaml:"settle"`
	From        string        `yaml:"from"` // beginning or now; "": beginning
}

// openStreams opens the streams to SIEMs, if the configuration names any.
func (w *worker) openStreams(ctx context.Context) error {
	if w.cfg.StreamFile == "" {
		return nil
	}
	if err := w.cfg.need("streaming", "MEDIRECORD_AUDITOR_DATABASE_URL"); err != nil {
		return err
	}
	if err := postgres.CheckTransport("MEDIRECORD_AUDITOR_DATABASE_URL", w.cfg.AuditorDatabaseURL, w.cfg.Dev()); err != nil {
		return err
	}
	cfg, err := w.cfg.readStreams()
	if err != nil {
		return fmt.Errorf("MEDIRECORD_STREAM_FILE: %w", err)
	}
	if cfg.Allow, err = prefixes("MEDIRECORD_OUTBOUND_ALLOW", w.cfg.OutboundAllow); err != nil {
		return err
	}
	if cfg.Reader, err = trail.OpenReader(ctx, w.cfg.AuditorDatabaseURL); err != nil {
		return fmt.Errorf("the trail, to stream it: %w", err)
	}
	w.closers = append(w.closers, cfg.Reader.Close)
	if err := postgres.CheckRole(ctx, cfg.Reader.Pool()); err != nil {
		return err
	}
	cfg.Log, cfg.Now, cfg.Dev, cfg.Altered = w.log, time.Now, w.cfg.Dev(), w.altered
	s, err := stream.New(cfg)
	if err != nil {
		return fmt.Errorf("MEDIRECORD_STREAM_FILE: %w", err)
	}
	w.parts = append(w.parts, func(ctx context.Context) error { s.Run(ctx); return nil })
	return w.metrics.Register(streamMetrics{s})
}

// readStreams reads the file and the files it names.
func (c *Config) readStreams() (out stream.Config, err error) {
	b, err := os.ReadFile(c.StreamFile)
	if err != nil {
		return out, err
	}
	var f streamFile
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return out, withoutValues(err)
	}
	if !errors.Is(dec.Decode(new(any)), io.EOF) {
		return out, errors.New("it holds more than one document, and only the first would count")
	}
	if len(f.Sinks) == 0 {
		return out, errors.New("it names no sinks: leave the setting out, or name one")
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	out.Source = siem.Source{Host: cmp.Or(f.Source.Host, host), URL: f.Source.URL}
	for i := range f.Sinks {
		s, err := f.Sinks[i].open(c.Dev())
		if err != nil {
			return out, fmt.Errorf("sink %q: %w", f.Sinks[i].Name, err)
		}
		out.Sinks = append(out.Sinks, s)
	}
	return out, nil
}

func (f *streamSink) open(dev bool) (s stream.Sink, err error) {
	s = stream.Sink{Name: f.Name, Kind: f.Kind, Address: f.Address, Format: cmp.Or(f.Format, siem.MediRecord), Batch: f.Batch, Settle: f.Settle, FromNow: f.From == "now"}
	if f.From != "" && f.From != "now" && f.From != "beginning" {
		return s, errors.New("from must be beginning or now")
	}
	switch {
	case f.Kind == stream.Syslog && f.URL != "":
		return s, errors.New("a syslog sink has an address, host:port, and no url")
	case f.Kind == stream.Syslog && (f.HMACKeyFile != "" || f.TokenFile != ""):
		return s, errors.New("syslog knows no signature and no token: its receiver knows us by our certificate")
	case f.Kind != stream.Syslog:
		if f.Address != "" {
			return s, errors.New("a sink over HTTP has a url, and no address")
		}
		if u, err := url.Parse(f.URL); err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !dev) {
			return s, errors.New("its url must be like https://siem.example/path, without a user in it")
		}
		s.Address = f.URL
	}
	if s.RootCAs, err = authorities(f.CA); err != nil {
		return s, err
	}
	if (f.Cert == "") != (f.Key == "") {
		return s, errors.New("cert and key belong together: name both or none")
	}
	if f.Cert != "" {
		s.Certificate = func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			return &cert, err
		}
		if _, err := s.Certificate(); err != nil {
			return s, fmt.Errorf("cert and key: %w", err)
		}
	}
	if s.HMACKey, err = secretLine("hmac_key_file", f.HMACKeyFile); err != nil {
		return s, err
	}
	token, err := secretLine("token_file", f.TokenFile)
	if strings.ContainsFunc(string(token), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return s, errors.New("token_file must hold one line, the token")
	}
	s.Token = string(token)
	return s, err
}

// authorities reads whom the other side's certificate must be of.
func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, errors.New("ca holds no certificate in PEM")
	}
	return pool, nil
}

// secretLine reads a file that only its owner may read, without the end of
// its line; nil when there is none.
func secretLine(name, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	b, err := readSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if b = bytes.TrimRight(b, "\r\n"); len(b) == 0 {
		return nil, fmt.Errorf("%s is empty", name)
	}
	return b, nil
}

// streamMetrics are the numbers of the streams.
type streamMetrics struct{ streams *stream.Streams }

var (
	streamLeader   = prometheus.NewDesc("medirecord_stream_leader", "1 while this replica serves the sink.", []string{"sink"}, nil)
	streamBehind   = prometheus.NewDesc("medirecord_stream_lag_entries", "Sealed entries that the sink is not known to have.", []string{"sink"}, nil)
	streamLag      = prometheus.NewDesc("medirecord_stream_lag_seconds", "How long ago the oldest of those was sealed.", []string{"sink"}, nil)
	streamSent     = prometheus.NewDesc("medirecord_stream_sent_total", "Entries sent to the sink, each time that they were.", []string{"sink"}, nil)
	streamTaken    = prometheus.NewDesc("medirecord_stream_taken_total", "Entries that the sink is known to have taken.", []string{"sink"}, nil)
	streamFailures = prometheus.NewDesc("medirecord_stream_failures_total", "Times that streaming to the sink failed.", []string{"sink"}, nil)
)

// Describe is prometheus.Collector's.
func (m streamMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{streamLeader, streamBehind, streamLag, streamSent, streamTaken, streamFailures} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (m streamMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, st := range m.streams.Stats() {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, st.Name)
		}
		counter := func(d *prometheus.Desc, v uint64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), st.Name)
		}
		gauge(streamLeader, truth(st.Leader))
		gauge(streamBehind, float64(st.Behind))
		gauge(streamLag, st.Lag.Seconds())
		counter(streamSent, st.Sent)
		counter(streamTaken, st.Taken)
		counter(streamFailures, st.Failures)
	}
}
