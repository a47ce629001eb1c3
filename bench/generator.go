// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// readsFromHere is the load generator for a machine without wrk. It costs
// several times wrk's CPU time, which the server then does not have.
func (b *bench) readsFromHere(ctx context.Context, s *system, ids []string, seconds int) (load, error) {
	b.say("no wrk on this machine (apt-get install -y wrk): generating the load in Go, which takes more of the CPU")
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: b.conns, MaxConnsPerHost: b.conns, DisableCompression: true}}
	defer client.CloseIdleConnections()
	var (
		mu    sync.Mutex
		took  []time.Duration
		total load
		group sync.WaitGroup
	)
	before, start := ownCPU(), time.Now()
	for worker := range b.conns {
		group.Go(func() {
			mine, bad := make([]time.Duration, 0, 4096), int64(0)
			for i := worker; ctx.Err() == nil; i += b.conns {
				at := time.Now()
				ok, counted := get(ctx, client, s.API+"/patients/"+ids[i%len(ids)], s.Tokens["clinician"])
				if !counted {
					break
				}
				mine = append(mine, time.Since(at))
				if !ok {
					bad++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			total.bad += bad
		})
	}
	group.Wait()
	total.cpu = ownCPU() - before
	slices.Sort(took)
	total.requests = int64(len(took))
	total.perSecond = float64(total.requests) / time.Since(start).Seconds()
	total.p50, total.p90, total.p99, total.max = quantile(took, .5), quantile(took, .9), quantile(took, .99), quantile(took, 1)
	return total, nil
}

// get makes one request. It does not count when the time was up before the
// answer came.
func get(ctx context.Context, client *http.Client, url, token string) (ok, counted bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, true
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		return false, ctx.Err() == nil
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return err == nil && resp.StatusCode == http.StatusOK, err == nil || ctx.Err() == nil
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
