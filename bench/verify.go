// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/app"
)

const (
	// wantedRows is how many entries a second are to be verified.
	wantedRows = 80_000
	// toVerify is how many entries verifying is measured on.
	toVerify = 400_000
)

// verifying measures audit verify: of an export, and of the database it came from.
func verifying(ctx context.Context, b *bench, r *result) error {
	s, err := b.start(ctx, 2)
	if err != nil {
		return err
	}
	defer s.stop()
	conn, err := pgx.Connect(ctx, s.Database.SuperuserURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	b.say("writing %d entries", toVerify)
	now := time.Now()
	if err := writeReads(ctx, conn, now); err != nil {
		return err
	}
	b.say("waiting until they are sealed and cosigned")
	if err := sealedAll(ctx, conn); err != nil {
		return err
	}
	cfg, err := app.DevConfig(s.dir, "operator")
	if err != nil {
		return err
	}
	path := filepath.Join(b.dir, "export.ndjson.gz")
	month := time.Date(now.UTC().Year(), now.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	at, entries := time.Now(), int64(0)
	if err := app.ExportTrail(ctx, cfg, month, path, nil, func(_ string, n int64, _ bool) { entries = n }); err != nil {
		return err
	}
	r.figure("export_rows_per_second", float64(entries)/time.Since(at).Seconds(), "1/s", "audit export to a file")
	opt := app.AuditOptions{Policy: cfg.TrailPolicy, Dev: true, Out: io.Discard, Now: time.Now}
	measure := func(files []string, url string) (float64, error) {
		o := opt
		o.Files, o.Database = files, url
		at := time.Now()
		v, err := app.VerifyTrail(ctx, o)
		if err == nil && v != app.Clean {
			err = fmt.Errorf("a trail that nobody touched is %s", v)
		}
		return toVerify / time.Since(at).Seconds(), err
	}
	var file, database []float64
	for round := range b.rounds {
		f, err := measure([]string{path}, "")
		if err != nil {
			return err
		}
		d, err := measure(nil, cfg.AuditorDatabaseURL)
		if err != nil {
			return err
		}
		file, database = append(file, f), append(database, d)
		b.say("round %d of %d: file %.0f rows/s, database %.0f rows/s", round+1, b.rounds, f, d)
	}
	slices.Sort(file)
	slices.Sort(database)
	r.figure("file_rows_per_second", file[len(file)/2], "1/s", fmt.Sprintf("an export, every entry hashed anew; wanted %d", wantedRows))
	r.figure("database_rows_per_second", database[len(database)/2], "1/s", fmt.Sprintf("the database, the patient map made anew; wanted %d", wantedRows))
	return nil
}

// writeReads writes what ordinary reads leave, about 1,000 patients.
func writeReads(ctx context.Context, conn *pgx.Conn, now time.Time) error {
	const step = 20_000
	for at := 0; at < toVerify; at += step {
		if _, err := conn.Exec(ctx, `
insert into audit.event (event_id, occurred_at, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice, action, resource_type, resource_id,
                         outcome, break_glass, ctx_nonce, ctx_mac, detail, nonce, version)
select (lpad(to_hex($3::bigint + i / 100), 12, '0') || '7000b' || substr(md5(i::text), 1, 15))::uuid, to_timestamp(($3::bigint + i / 100) / 1000.0),
       'https://issuer.example', 'dr-' || i % 50, 'practice-north', 'p-' || i % 1000, 'practice-north', 'read', 'patient', 'p-' || i % 1000,
       'success', false, 'W6useeTXhUo1VbHQCbcSXQ', md5(i::text) || md5(i::text),
       '{"roles":["clinician"],"session":"01a2074e-0148-7036-a678-0865c78fb187","mfa":"fresh","clear":["name","ssn","dob","diagnosis"],"ip":"127.0.0.1","user_agent":"bench"}',
       decode(md5('n' || i), 'hex'), 1
  from generate_series($1::bigint, $2::bigint) i`, at, at+step-1, now.UnixMilli()-toVerify/100); err != nil {
			return err
		}
	}
	return nil
}

// sealedAll waits until every entry is under a cosigned checkpoint.
func sealedAll(ctx context.Context, conn *pgx.Conn) error {
	for {
		var done bool
		err := conn.QueryRow(ctx, `
select coalesce((select max(size) from audit.checkpoint where cosigned_at is not null), 0) >= (select count(*) from audit.event)`).Scan(&done)
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
