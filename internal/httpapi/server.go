// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/prometheus/client_golang/prometheus"
)

// Authenticator says who is calling. It reports med.Unauthorized for a token
// that does not hold, with the code sidecar_unavailable when nobody could tell.
type Authenticator interface {
	Authenticate(ctx context.Context, header []string, from med.Origin) (med.Caller, error)
}

// Chart is the door to patient data, as far as this room uses it.
type Chart interface {
	ReadPatient(ctx context.Context, c med.Caller, id med.PatientID, want ...med.Field) (*med.PatientView, error)
	CreatePatient(ctx context.Context, c med.Caller, p med.Patch, o med.Once) (*med.PatientView, error)
	UpdatePatient(ctx context.Context, c med.Caller, id med.PatientID, seen string, p med.Patch) (*med.PatientView, error)
	DeletePatient(ctx context.Context, c med.Caller, id med.PatientID, seen string) (med.EventID, error)
	ListPatients(ctx context.Context, c med.Caller, p med.Page) (*med.PatientPage, error)
	SearchPatients(ctx context.Context, c med.Caller, by string, probe med.Patient) (*med.PatientPage, error)
	LookUp(ctx context.Context, c med.Caller, ask med.LookupAsk) (*med.Lookup, error)
	RestorePatient(ctx context.Context, c med.Caller, id med.PatientID) (*med.PatientView, error)
	CreateRecord(ctx context.Context, c med.Caller, id med.PatientID, p med.Patch, o med.Once) (*med.RecordView, error)
	ReadRecord(ctx context.Context, c med.Caller, id med.PatientID, which med.RecordID) (*med.RecordView, error)
	ReadRecords(ctx context.Context, c med.Caller, id med.PatientID, ask med.RecordAsk, p med.Page) (*med.RecordPage, error)
	ReadVersions(ctx context.Context, c med.Caller, id med.PatientID, which med.RecordID) (*med.RecordPage, error)
	UpdateRecord(ctx context.Context, c med.Caller, id med.PatientID, which med.RecordID, seen string, p med.Patch) (*med.RecordView, error)
	DeleteRecord(ctx context.Context, c med.Caller, id med.PatientID, which med.RecordID, seen string) (med.EventID, error)
	ReadAccessLog(ctx context.Context, c med.Caller, id med.PatientID, limit int) ([]med.AccessEvent, med.EventID, error)
	ReadTrail(ctx context.Context, c med.Caller, q med.TrailQuery) (*med.TrailPage, error)
	ReadUserTrail(ctx context.Context, c med.Caller, user string, q med.TrailQuery) (*med.TrailPage, error)
	ReadAccesses(ctx context.Context, c med.Caller, id med.PatientID, p med.Page) (*med.AccessPage, error)
	ReadCheckpoint(ctx context.Context, c med.Caller) (*med.Checkpoint, error)
	ProveEntry(ctx context.Context, c med.Caller, id med.EventID) (*med.EntryProof, error)
	ProveAccesses(ctx context.Context, c med.Caller, id med.PatientID) (*med.WholeProof, error)
	Tile(ctx context.Context, c med.Caller, epoch int32, id audit.TileID, w int) ([]byte, error)
	RecordDisclosure(ctx context.Context, c med.Caller, id med.PatientID, d med.Disclosure, o med.Once) (*med.Disclosure, error)
	AmendDisclosure(ctx context.Context, c med.Caller, id med.PatientID, which med.DisclosureID, change med.Amendment) (*med.Disclosure, error)
	AddTreatment(ctx context.Context, c med.Caller, t med.Treatment, o med.Once) (*med.Treatment, error)
	EndTreatment(ctx context.Context, c med.Caller, kind med.TreatmentKind, patient med.PatientID, id med.TreatmentID) (med.EventID, error)
	Treatments(ctx context.Context, c med.Caller, q med.TreatmentQuery) (*med.TreatmentPage, error)
	ReadAccounting(ctx context.Context, c med.Caller, id med.PatientID, ask med.AccountingAsk) (*med.Accounting, error)
	OpenGlass(ctx context.Context, c med.Caller, id med.PatientID, code string, reason med.PHI) (*med.Glass, error)
	ListGlass(ctx context.Context, c med.Caller, q med.GlassQuery) (*med.GlassPage, error)
	ReadGlass(ctx context.Context, c med.Caller, id med.GlassID) (*med.Glass, error)
	EndGlass(ctx context.Context, c med.Caller, id med.GlassID) (*med.Glass, error)
	ReviewGlass(ctx context.Context, c med.Caller, id med.GlassID, verdict string, note med.PHI) (*med.Glass, error)
}

// Config is what the room needs. Auth, Chart, Log, Now and Ready are required;
// the rest has defaults.
type Config struct {
	Auth  Authenticator
	Chart Chart
	Log   *slog.Logger
	Now   func() time.Time
	// Ready says what the process needs and whether it has it.
	Ready func(ctx context.Context) []Check
	// TrustedProxies may say in X-Forwarded-For for whom they speak. None by default.
	TrustedProxies []netip.Prefix
	MaxBody        int64                // 1 MiB
	Timeout        time.Duration        // of one request, 10 s
	Version        string               // of the product, for the metrics only
	Dev            bool                 // the documentation page may try requests; unexpected errors are logged with their text
	Metrics        *prometheus.Registry // a new one
	NewID          func() string        // request ids, UUIDs version 7
}

// Server answers the API's requests (ServeHTTP) and those of the operations
// listener (Ops). It is safe for concurrent use.
type Server struct {
	cfg        Config
	router     router
	metrics    metrics
	accounting sheet
}

// New returns the room. It reports an error when something required is missing
// or the registry already has the room's metrics.
func New(cfg Config) (*Server, error) {
	if cfg.Auth == nil || cfg.Chart == nil || cfg.Log == nil || cfg.Now == nil || cfg.Ready == nil {
		return nil, errors.New("httpapi: Auth, Chart, Log, Now and Ready are required")
	}
	cfg.defaults()
	m, err := newMetrics(cfg.Metrics, cfg.Version)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, metrics: m}
	if s.accounting, err = newSheet("accounting.html", "accounting.css"); err != nil {
		return nil, err
	}
	if s.router, err = newRouter(s); err != nil {
		return nil, err
	}
	return s, nil
}

func (c *Config) defaults() {
	if c.MaxBody == 0 {
		c.MaxBody = 1 << 20
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	if c.NewID == nil {
		now := c.Now
		c.NewID = func() string { return med.NewUUID(now()) }
	}
}

// HTTPServer returns a server for the handler whose waits all end: a client
// that sends or reads slowly loses its connection, not ours. The context goes
// with what the server logs; its end does not stop the server. Serve it on a
// Listener of the room.
func (s *Server) HTTPServer(ctx context.Context, h http.Handler) *http.Server {
	return lines(&http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      s.cfg.Timeout + 20*time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          newErrorLog(context.WithoutCancel(ctx), s.cfg.Log),
		// OPTIONS * is a request like any other, and refused like any other.
		DisableGeneralOptionsHandler: true,
	})
}

// ServeHTTP answers one request of the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{id: s.cfg.NewID(), start: s.cfg.Now(), method: r.Method}
	ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), exchangeKey{}, x), s.cfg.Timeout)
	defer cancel()
	a := &answerWriter{ResponseWriter: w}
	defer s.account(ctx, x, a)
	defer s.shield(ctx, x, a)

	x.from = originOf(r, x.id, s.cfg.TrustedProxies)
	secure(a.Header(), x.id)
	r = r.WithContext(ctx)
	r.Body = http.MaxBytesReader(a, r.Body, s.cfg.MaxBody)
	s.router.ServeHTTP(a, r)
}
