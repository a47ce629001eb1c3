// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/medirecord/medirecord/internal/cosign"
)

// maxBody is the largest request that can be one: the checkpoint, 63 hashes and
// the first line.
const maxBody = cosign.MaxCheckpoint + 45*cosign.MaxProof + 64

// Server returns the HTTP server of the witness, with limits of time and size.
func (w *Witness) Server() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", w.addCheckpoint)
	mux.HandleFunc("GET /checkpoint", w.checkpoint)
	mux.HandleFunc("GET /healthz", w.healthz)
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
	}
}

// addCheckpoint is add-checkpoint of c2sp.org/tlog-witness.
func (w *Witness) addCheckpoint(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		http.Error(rw, "the request is larger than any can be", http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(rw, "the request did not arrive whole", http.StatusBadRequest)
		return
	}
	lines, err := w.AddCheckpoint(r.Context(), body)
	var conflict *ConflictError
	switch {
	case err == nil:
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = rw.Write(lines)
	case errors.As(err, &conflict):
		rw.Header().Set("Content-Type", cosign.SizeType)
		rw.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(rw, strconv.FormatInt(conflict.Size, 10)+"\n")
	default:
		status, why := reply(err)
		http.Error(rw, why, status)
	}
}

// reply says the sentinel and not what is below it: paths are not for strangers.
func reply(err error) (int, string) {
	for _, known := range []struct {
		err    error
		status int
	}{
		{ErrRequest, http.StatusBadRequest},
		{ErrSignature, http.StatusForbidden},
		{ErrUnknownLog, http.StatusNotFound},
		{ErrSplit, http.StatusConflict},
		{ErrProof, http.StatusUnprocessableEntity},
		{ErrState, http.StatusServiceUnavailable},
	} {
		if errors.Is(err, known.err) {
			return known.status, known.err.Error()
		}
	}
	return http.StatusInternalServerError, "the witness failed"
}

// checkpoint tells the last cosigned checkpoint of a log, so that an auditor
// can notice that the log has gone back. It is no part of the specification.
func (w *Witness) checkpoint(rw http.ResponseWriter, r *http.Request) {
	signed, err := w.Checkpoint(r.URL.Query().Get("origin"))
	if err != nil {
		status, why := reply(err)
		http.Error(rw, why, status)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	_, _ = rw.Write(signed)
}

func (w *Witness) healthz(rw http.ResponseWriter, _ *http.Request) {
	if !w.Healthy() {
		http.Error(rw, ErrState.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(rw, "ok\n")
}
