// SPDX-License-Identifier: Apache-2.0

// Package stream brings the sealed trail to those who watch: a SIEM, a
// collector, an audit repository. Each sink has a cursor in the database that
// moves on only when the sink has what stands before it, so that every entry
// arrives at least once, in order, under ids that never change; what arrives
// twice is the same event. It reads as the auditor, opens no patient data,
// and holds back nobody: a sink that is away costs its own lag and nothing else.
package stream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/siem"
	"github.com/medirecord/medirecord/internal/trail"
)

// Kind is how a sink is spoken to.
type Kind string

// The kinds.
const (
	Syslog Kind = "syslog" // RFC 5424 over TLS, RFC 5425
	HTTPS  Kind = "https"  // JSON by POST, as Splunk's HEC takes it
	OTLP   Kind = "otlp"   // OpenTelemetry logs over HTTP, protobuf
)

// Sink is one consumer.
type Sink struct {
	Name    string // of its cursor
	Kind    Kind
	Address string // host:port of syslog, URL of the others
	Format  siem.Format
	// RootCAs are whom its certificate must be of; nil are the system's.
	RootCAs *x509.CertPool
	// Certificate is ours, read anew for each connection. Syslog needs one.
	Certificate func() (*tls.Certificate, error)
	HMACKey     []byte // signs bodies; nil: unsigned
	Token       string // of Splunk; "": none
	Batch       int    // entries sent at once; 0 means 500
	// Settle is how long a syslog receiver must live on after it took a window
	// before we believe that it has kept it; 0 means 5 s. See syslogCarrier.
	Settle time.Duration
	// FromNow begins a new cursor behind what is sealed, instead of at the
	// beginning of the log.
	FromNow bool
}

// Config is what the streams stand on.
type Config struct {
	Reader *trail.Reader
	Sinks  []Sink
	Source siem.Source
	Allow  []netip.Prefix // private ranges that sinks may be in
	Dev    bool           // permits loopback
	Log    *slog.Logger
	Now    func() time.Time

	// Altered is told of an entry that is not the one that was sealed, before the
	// sinks are; nil: nobody is. With an error, all waits.
	Altered func(context.Context, *trail.Sealed) error

	Every   time.Duration // how often to look for new entries; 0 means 500 ms
	Backoff time.Duration // the first pause after a failure, doubled up to a minute; 0 means 1 s
	Wait    time.Duration // how long an answer may take; 0 means 30 s
}

// AlertLag is the lag above which every minute's log has an alert.
const AlertLag = time.Minute

var sinkName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Streams are the sinks of this process.
type Streams struct {
	cfg   Config
	sinks []*stream
}

// New returns the streams, or says which sink's configuration cannot be.
func New(cfg Config) (*Streams, error) {
	cfg.Every = cmp.Or(cfg.Every, 500*time.Millisecond)
	cfg.Backoff = cmp.Or(cfg.Backoff, time.Second)
	cfg.Wait = cmp.Or(cfg.Wait, 30*time.Second)
	s := &Streams{cfg: cfg}
	for i := range cfg.Sinks {
		sink := cfg.Sinks[i]
		sink.Batch, sink.Settle = cmp.Or(sink.Batch, 500), cmp.Or(sink.Settle, 5*time.Second)
		if err := sink.check(); err != nil {
			return nil, fmt.Errorf("sink %q: %w", sink.Name, err)
		}
		if slices.ContainsFunc(s.sinks, func(o *stream) bool { return o.sink.Name == sink.Name }) {
			return nil, fmt.Errorf("two sinks are called %q: each needs a cursor of its own", sink.Name)
		}
		s.sinks = append(s.sinks, &stream{cfg: cfg, sink: sink, stats: Stats{Name: sink.Name}})
	}
	return s, nil
}

func (s *Sink) check() error {
	switch {
	case !sinkName.MatchString(s.Name):
		return errors.New("its name must be lower-case letters, digits, - and _, 63 at the most")
	case !slices.Contains(siem.Formats, s.Format):
		return fmt.Errorf("its format must be one of %v", siem.Formats)
	case s.Batch < 1 || s.Batch > 10000:
		return errors.New("its batch must be 1 to 10000")
	case s.Settle < 0 || s.Settle > time.Hour:
		return errors.New("its settle must be at most an hour")
	}
	switch s.Kind {
	case Syslog:
		if s.Certificate == nil {
			return errors.New("syslog goes over mutual TLS only: give it a cert and a key")
		}
		if _, _, err := splitHostPort(s.Address); err != nil {
			return errors.New("its address must be host:port")
		}
	case HTTPS, OTLP:
		if s.Kind == HTTPS && s.HMACKey == nil && s.Token == "" && s.Certificate == nil {
			return errors.New("the receiver could not tell us from anybody: give it an hmac_key_file, a token_file, or a cert")
		}
		if s.HMACKey != nil && len(s.HMACKey) < 32 {
			return errors.New("its HMAC key must have at least 32 bytes")
		}
	default:
		return errors.New("its kind must be syslog, https or otlp")
	}
	return nil
}

// Run streams until the context ends.
func (s *Streams) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, sink := range s.sinks {
		all.Go(func() { sink.run(ctx) })
	}
	all.Go(func() { s.watch(ctx) })
	all.Wait()
}

// Stats are what metrics tell of a sink. Sent, Taken and Failures are this
// process's; Behind and Lag the sink's, whoever serves it.
type Stats struct {
	Name     string
	Leader   bool // this process serves it
	Sent     uint64
	Taken    uint64
	Failures uint64
	Code     string // of the last failure, "" when the last attempt went well
	Behind   int64
	Lag      time.Duration
}

// Stats returns the state of each sink.
func (s *Streams) Stats() []Stats {
	out := make([]Stats, len(s.sinks))
	for i, w := range s.sinks {
		out[i] = w.get()
	}
	return out
}

// watch measures lag, whoever leads, and says aloud what is too far behind.
func (s *Streams) watch(ctx context.Context) {
	said := map[string]time.Time{}
	for pause(ctx, 2*s.cfg.Every) {
		all, err := s.cfg.Reader.Progress(ctx)
		if err != nil {
			continue // the streams themselves tell of it
		}
		for _, w := range s.sinks {
			i := slices.IndexFunc(all, func(p trail.Progress) bool { return p.Name == w.sink.Name })
			if i < 0 {
				continue
			}
			p := all[i]
			w.set(func(st *Stats) { st.Behind, st.Lag = p.Behind, p.Age })
			switch now := s.cfg.Now(); {
			case p.Age <= AlertLag:
				if _, was := said[p.Name]; was {
					delete(said, p.Name)
					s.cfg.Log.InfoContext(ctx, "siem sink has caught up", slog.String("sink", p.Name))
				}
			case now.Sub(said[p.Name]) >= time.Minute:
				said[p.Name] = now
				s.cfg.Log.ErrorContext(ctx, "ALERT siem sink lags", slog.String("sink", p.Name), slog.Int64("entries", p.Behind),
					slog.Duration("lag", p.Age.Round(time.Second)), slog.String("code", p.LastError))
			}
		}
	}
}

// pause waits, and reports whether the context is still on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
