// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/intake"
	"github.com/medirecord/medirecord/internal/med"
)

// devPractices are the two practices of a development server.
var devPractices = []struct {
	id   med.PracticeID
	name string
}{{"practice-north", "MedCore North"}, {"practice-south", "MedCore South"}}

// listedPatients is how many patients dev.json names.
const listedPatients = 50

// seed makes the practices, and the sample or imported patients, through the
// door like everybody else. What is there already stays.
func (d *dev) seed(ctx context.Context) error {
	if err := d.withDoor(ctx, "operator", func(door *Door) error {
		for _, p := range devPractices {
			d.info.Practices = append(d.info.Practices, string(p.id))
			if err := patiently(ctx, func() error {
				return door.Chart.AddPractice(ctx, chart.Operator("dev"), p.id, p.name)
			}); err != nil && med.KindOf(err) != med.Conflict {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if d.opt.Import != "" {
		return d.seedImport(ctx)
	}
	return d.seedSample(ctx)
}

func (d *dev) withDoor(ctx context.Context, service string, work func(*Door) error) error {
	var door *Door
	if err := patiently(ctx, func() (err error) {
		door, err = OpenDoor(ctx, d.part(service), slog.New(slog.DiscardHandler))
		return err
	}); err != nil {
		return err
	}
	defer door.Close()
	return work(door)
}

// Starting is tried again for about this long.
const (
	seedTries = 30
	seedPause = time.Second
)

// patiently does again what a part had no time for. Each part has a second or two,
// and where a whole system starts at once, on a machine with other work, a commit
// alone can take longer. What is done before is found done.
func patiently(ctx context.Context, work func() error) error {
	for try := 1; ; try++ {
		err := work()
		var known *med.Error
		slow := errors.As(err, &known) && (known.Kind.Retryable || known.Code == "sidecar_unavailable") || errors.Is(err, coresdk.ErrUnavailable)
		if !slow || try == seedTries {
			return err
		}
		select {
		case <-time.After(seedPause):
		case <-ctx.Done():
			return err
		}
	}
}

func (d *dev) seedSample(ctx context.Context) error {
	if d.opt.Sample > 0 {
		d.say("making %d sample patients", d.opt.Sample)
	}
	return d.withDoor(ctx, "import", func(door *Door) error {
		for n := 1; n <= d.opt.Sample; n++ {
			practice := devPractices[0].id
			if n > (d.opt.Sample+1)/2 {
				practice = devPractices[1].id
			}
			b := samplePatient(n)
			b.Hash = sha256.Sum256(fmt.Appendf(nil, "medirecord sample 1 patient %d", n))
			var done chart.Imported
			if err := patiently(ctx, func() (err error) {
				done, err = door.Chart.Import(ctx, chart.Importer("dev"), practice, b)
				return err
			}); err != nil {
				return fmt.Errorf("sample patient %d: %w", n, err)
			}
			d.list(done.Patient, practice)
		}
		return nil
	})
}

func (d *dev) list(id med.PatientID, practice med.PracticeID) {
	if len(d.info.Patients) < listedPatients {
		d.info.Patients = append(d.info.Patients, DevPatient{ID: string(id), Practice: string(practice)})
	}
}

func (d *dev) seedImport(ctx context.Context) error {
	d.say("importing %s into %s", d.opt.Import, devPractices[0].id)
	return d.withDoor(ctx, "import", func(door *Door) error {
		sum, err := intake.Run(ctx, intake.Options{
			Paths: []string{d.opt.Import}, Practice: devPractices[0].id, Caller: chart.Importer("dev"),
			Chart: &lister{Service: door.Chart, seen: func(id med.PatientID) { d.list(id, devPractices[0].id) }}, Progress: d.opt.Out,
		})
		if err != nil {
			return err
		}
		_ = sum.Report(d.opt.Out)
		if !sum.OK() && sum.Patients+sum.Unchanged == 0 {
			return errors.New("nothing could be imported")
		}
		return nil
	})
}

// lister notes which patients an import brought.
type lister struct {
	*chart.Service
	mu   sync.Mutex
	seen func(med.PatientID)
}

func (l *lister) Import(ctx context.Context, c med.Caller, practice med.PracticeID, b chart.Bundle) (chart.Imported, error) {
	done, err := l.Service.Import(ctx, c, practice, b)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.seen(done.Patient)
	}
	return done, err
}
