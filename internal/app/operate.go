// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/intake"
	"github.com/medirecord/medirecord/internal/med"
)

// DevConfig returns the configuration with which this machine's operator
// reaches the development server on the folder, as one of its services.
func DevConfig(dir, service string) (*Config, error) {
	info, err := ReadDevInfo(dir)
	if err != nil {
		return nil, err
	}
	files := devFiles{dir}
	return &Config{
		SidecarAddr: info.Sidecar, FailMode: "closed", Env: "dev", KeyKeeper: "file://" + files.keeper(),
		DatabaseURL: info.Database.AppURL, TrailDatabaseURL: info.Database.TrailURL, KeystoreDatabaseURL: info.Database.KeystoreURL,
		AuditorDatabaseURL: info.Database.AuditorURL, TrailPolicy: files.trailPolicy(), ServiceTokenFile: files.service(service),
	}, nil
}

// Import imports FHIR bundles and NDJSON folders into a practice, through the
// door as the service import, and reports to out. It returns whether all that
// was found is in.
func Import(ctx context.Context, cfg *Config, practice, source string, paths []string, workers int, out io.Writer) (bool, error) {
	id, err := med.ParsePracticeID(practice)
	if err != nil {
		return false, err
	}
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return false, fmt.Errorf("nothing to import: %w", err)
		}
	}
	door, err := OpenDoor(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return false, err
	}
	defer door.Close()
	sum, err := intake.Run(ctx, intake.Options{
		Paths: paths, Practice: id, Source: source, Caller: chart.Importer(operatorName()), Chart: door.Chart, Workers: workers, Progress: os.Stderr, Now: time.Now,
	})
	if rerr := sum.Report(out); err == nil {
		err = rerr
	}
	return err == nil && sum.OK(), err
}

// operatorName is on whose behalf a command runs: the operating system's user,
// as data for the trail.
func operatorName() string {
	if u := os.Getenv("SUDO_USER"); u != "" {
		return u
	}
	return fmt.Sprintf("uid:%d", os.Geteuid())
}

// AddPractice makes a practice with its keys.
func AddPractice(ctx context.Context, cfg *Config, id, name string) error {
	practice, err := med.ParsePracticeID(id)
	if err != nil {
		return err
	}
	return withOperator(ctx, cfg, func(d *Door) error {
		return d.Chart.AddPractice(ctx, chart.Operator(operatorName()), practice, name)
	})
}

// Practices lists the practices.
func Practices(ctx context.Context, cfg *Config) (out []chart.Practice, err error) {
	err = withOperator(ctx, cfg, func(d *Door) (err error) {
		out, err = d.Chart.Practices(ctx, chart.Operator(operatorName()))
		return err
	})
	return out, err
}

func withOperator(ctx context.Context, cfg *Config, work func(*Door) error) error {
	door, err := OpenDoor(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer door.Close()
	return work(door)
}

// TrustSource has a practice believe a source of imports when it says who treats
// whom, or believe it no more.
func TrustSource(ctx context.Context, cfg *Config, practice, source string, trusted bool) error {
	return enrolling(ctx, cfg, practice, func(d *Door, c med.Caller, id med.PracticeID) error {
		return d.Chart.TrustSource(ctx, c, id, source, trusted)
	})
}

// EnrollStaff says which login a practitioner of a source is.
func EnrollStaff(ctx context.Context, cfg *Config, practice string, m chart.StaffMember) error {
	return enrolling(ctx, cfg, practice, func(d *Door, c med.Caller, id med.PracticeID) error { return d.Chart.EnrollStaff(ctx, c, id, m) })
}

// DismissStaff says that a practitioner is that login no more.
func DismissStaff(ctx context.Context, cfg *Config, practice string, m chart.StaffMember) error {
	return enrolling(ctx, cfg, practice, func(d *Door, c med.Caller, id med.PracticeID) error { return d.Chart.DismissStaff(ctx, c, id, m) })
}

// TrustedSources lists the sources that a practice believes now.
func TrustedSources(ctx context.Context, cfg *Config, practice string) (out []chart.TrustedSource, err error) {
	err = enrolling(ctx, cfg, practice, func(d *Door, c med.Caller, id med.PracticeID) (err error) {
		out, err = d.Chart.TrustedSources(ctx, c, id)
		return err
	})
	return out, err
}

// EnrolledStaff lists which practitioners are which logins of a practice now.
func EnrolledStaff(ctx context.Context, cfg *Config, practice string) (out []chart.StaffMember, err error) {
	err = enrolling(ctx, cfg, practice, func(d *Door, c med.Caller, id med.PracticeID) (err error) {
		out, err = d.Chart.EnrolledStaff(ctx, c, id)
		return err
	})
	return out, err
}

func enrolling(ctx context.Context, cfg *Config, practice string, work func(*Door, med.Caller, med.PracticeID) error) error {
	id, err := med.ParsePracticeID(practice)
	if err != nil {
		return err
	}
	return withOperator(ctx, cfg, func(d *Door) error { return work(d, chart.Operator(operatorName()), id) })
}
