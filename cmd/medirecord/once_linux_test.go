// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMadeOnceThoughTheAPIWasKilled kills the API when what it makes is committed
// and nobody knows it yet, not even itself: PostgreSQL has written the commit, and
// waits, before it says so, for a standby that does not exist. Who sends the same
// once more gets what is there.
//
// Not parallel: it starts every part of the system.
func TestMadeOnceThoughTheAPIWasKilled(t *testing.T) {
	s := newHome(t).dev(t, nil, "--sample", "1")
	patient := s.info.Patients[0].ID
	from := time.Now().UTC().Truncate(time.Hour)
	appointment := func(with string) string {
		return fmt.Sprintf(`{"patient_id":%q,"subject":%q,"from":%q,"to":%q}`, patient, with, from.Format(time.RFC3339), from.Add(time.Hour).Format(time.RFC3339))
	}
	for _, made := range []struct {
		name, role, path, body, same, other string
		rows, action                        string // of what is made, by id; of its entry
	}{
		{
			"a patient", "clinician", "/api/v1/patients",
			`{"name":{"family":"Once"},"phone":"5550100"}`, ` {"phone":"5550100", "name":{"family":"Once"}}`, `{"name":{"family":"Twice"}}`,
			`select count(*) from medirecord.patient where id = $1`, "create",
		},
		{
			"a record", "clinician", "/api/v1/patients/" + patient + "/records",
			`{"kind":"observation","status":"final","note":"once"}`, `{"note":"once","status":"final", "kind":"observation"}`, `{"kind":"observation","status":"final","note":"twice"}`,
			`select count(*) from medirecord.record where id = $1`, "create",
		},
		{
			"an appointment", "nurse", "/api/v1/appointments", appointment("dr-1"), " " + appointment("dr-1"), appointment("dr-2"),
			`select count(*) from medirecord.treatment where id::text = $1`, "add_appointment",
		},
	} {
		t.Run(made.name, func(t *testing.T) {
			token := s.info.Tokens[made.role]
			var before int
			var key string
			for try := 1; ; try++ {
				before = s.entries(t, made.action)
				key = fmt.Sprint("once-", strings.ReplaceAll(made.name, " ", "-"), "-", try)
				if s.killedBetweenCommitAndAnswer(t, func(ctx context.Context, api string) answer {
					return post(ctx, api+made.path, token, made.body, "Idempotency-Key", key)
				}) {
					break
				}
				if try == 20 {
					t.Fatal("twenty times the request was given up before it could be stopped where it was to be: this machine is too busy")
				}
			}
			super := s.super(t, s.info.Database.Name)
			const last = `select resource from medirecord.idempotency order by created_at desc limit 1`
			id := row[string](t, super, last)

			api, _, _ := s.serve(t)
			for _, body := range []string{made.body, made.same} {
				a := patiently(t, func() answer { return post(t.Context(), api+made.path, token, body, "Idempotency-Key", key) })
				if a.err != nil || a.status != http.StatusCreated || !strings.HasSuffix(a.header.Get("Location"), "/"+id) || !strings.Contains(string(a.body), `"id":"`+id+`"`) {
					t.Fatalf("once more: got %d %s %v, want 201 of %s", a.status, a.body, a.err, id)
				}
			}
			other := func() answer { return post(t.Context(), api+made.path, token, made.other, "Idempotency-Key", key) }
			if a := patiently(t, other); a.status != http.StatusConflict || a.field("code") != "key_reused" {
				t.Errorf("another body: got %d %s, want 409", a.status, a.body)
			}
			if n := row[int](t, super, made.rows, id); n != 1 {
				t.Errorf("%d rows of %s, want one", n, id)
			}
			if n := s.entries(t, made.action) - before; n != 1 {
				t.Errorf("%d entries of something made, want one", n)
			}
		})
	}
	s.stop(t, syscall.SIGTERM)
}

// entries counts the entries of something that was made: an answer that was made
// anew says so.
func (s *devServer) entries(t *testing.T, action string) int {
	t.Helper()
	return row[int](t, s.super(t, s.info.Database.Name), `select count(*) from audit.event
		where parent_id is null and action = $1 and outcome = 'success' and coalesce(detail::text, '') not like '%made_before%'`, action)
}

// killedBetweenCommitAndAnswer runs an API of its own and kills it when the
// transaction of the request is committed, and its commit not yet answered. The
// request must make something, with a key. It reports false when the API gave the
// request up before that, as it does after its second or two: nothing is promised
// of it then.
func (s *devServer) killedBetweenCommitAndAnswer(t *testing.T, request func(ctx context.Context, api string) answer) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	look := s.super(t, s.info.Database.Name)
	api, p := s.served(t)

	// First it waits with all that it wants to write, for a lock on what is remembered.
	gate, err := s.super(t, s.info.Database.Name).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gate.Exec(t.Context(), `lock table medirecord.idempotency in share mode`); err != nil {
		t.Fatal(err)
	}
	answered := make(chan answer, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		answered <- request(ctx, api)
	}()
	waits := func(what, where string) {
		t.Helper()
		eventually(t, 2*time.Minute, what, func() error {
			select {
			case <-over: // too late, or it waits for nothing any more
				return nil
			default:
			}
			if row[int](t, look, `select count(*) from pg_stat_activity where `+where) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	waits("the request is at its writing", `usename = 'medirecord_app' and wait_event_type = 'Lock'`)

	// From here on no commit is answered. One of our own says when that is so.
	exec1(t, look, `alter system set synchronous_standby_names = 'nobody'`)
	exec1(t, look, `select pg_reload_conf()`)
	probe := s.super(t, s.info.Database.Name)
	pid := probe.PgConn().PID()
	probed := make(chan struct{})
	go func() {
		defer close(probed)
		for ctx.Err() == nil {
			if _, err := probe.Exec(ctx, `select pg_logical_emit_message(true, 'probe', '')`); err != nil {
				return
			}
		}
	}()
	eventually(t, 2*time.Minute, "no commit is answered", func() error {
		if row[int](t, look, `select count(*) from pg_stat_activity where pid = $1 and wait_event = 'SyncRep'`, pid) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if err := gate.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	waits("the request is committed", `usename = 'medirecord_app' and wait_event = 'SyncRep'`)
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	a := <-answered
	if a.err == nil && !a.busy() {
		t.Errorf("got an answer: %d %s", a.status, a.body)
	}
	exec1(t, look, `alter system reset synchronous_standby_names`)
	exec1(t, look, `select pg_reload_conf()`)
	eventually(t, 2*time.Minute, "commits are answered again", func() error {
		if n := row[int](t, look, `select count(*) from pg_stat_activity where wait_event = 'SyncRep'`); n > 0 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	cancel()
	<-probed
	return a.err != nil
}

// served is serve for an API that the test will kill.
func (s *devServer) served(t *testing.T) (api string, p *running) {
	t.Helper()
	file := filepath.Join(s.tmp(), "killed.ready")
	p = s.launch(t, "killed", append(s.serving(), "MEDIRECORD_READY_FILE="+file), "serve")
	eventually(t, 2*time.Minute, "serve is ready", func() error {
		b, err := os.ReadFile(file)
		if err == nil {
			api = "http://" + strings.Fields(string(b))[0]
			err = os.Remove(file)
		}
		return err
	})
	return api, p
}

// post sends JSON. Header pairs follow the body.
func post(ctx context.Context, url, token, body string, header ...string) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := clients().Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: b, err: err}
}
