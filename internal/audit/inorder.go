// SPDX-License-Identifier: Apache-2.0

package audit

import "sync"

// InOrder works on several tasks at once and takes the results in the order of
// the tasks. It holds at most twice as many tasks as there are workers, and
// returns the first error, of whichever of the three, when all have stopped.
func InOrder[T, R any](workers int, next func() (T, bool, error), work func(worker int, task T) (R, error), take func(R) error) error {
	type slot struct {
		task T
		done chan struct{}
		out  R
		err  error
	}
	var (
		tasks  = make(chan *slot)
		queue  = make(chan *slot, 2*workers)
		quit   = make(chan struct{})
		group  sync.WaitGroup
		failed error
	)
	for w := range workers {
		group.Go(func() {
			for s := range tasks {
				s.out, s.err = work(w, s.task)
				close(s.done)
			}
		})
	}
	group.Go(func() {
		defer close(queue)
		defer close(tasks)
		for {
			t, ok, err := next()
			if err != nil {
				failed = err
			}
			if err != nil || !ok {
				return
			}
			s := &slot{task: t, done: make(chan struct{})}
			select {
			case queue <- s:
			case <-quit:
				return
			}
			select {
			case tasks <- s:
			case <-quit:
				close(s.done) // nobody will work on it
				return
			}
		}
	})
	var err error
	for s := range queue {
		if err != nil {
			continue
		}
		<-s.done
		if err = s.err; err == nil {
			err = take(s.out)
		}
		if err != nil {
			close(quit)
		}
	}
	group.Wait()
	if err != nil {
		return err
	}
	return failed
}
