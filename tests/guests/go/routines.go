// A hundred goroutines that sleep, talk over a channel and share a lock; then files and JSON.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

func main() {
	var wait sync.WaitGroup
	var lock sync.Mutex
	squares := make(chan int, 10)
	seen := map[int]bool{}
	for i := 0; i < 100; i++ {
		wait.Add(1)
		go func(n int) {
			defer wait.Done()
			time.Sleep(time.Duration(n%5) * time.Millisecond)
			lock.Lock()
			seen[n] = true
			lock.Unlock()
			squares <- n * n
		}(i)
	}
	go func() { wait.Wait(); close(squares) }()
	sum := 0
	for s := range squares {
		sum += s
	}
	fmt.Println("sum", sum, "seen", len(seen), "args", os.Args[1:])
	if len(os.Args) > 1 {
		text, _ := json.Marshal(map[string]int{"sum": sum})
		if err := os.WriteFile(os.Args[1], text, 0o644); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		entries, err := os.ReadDir(".")
		fmt.Println(len(entries), err)
	}
}
