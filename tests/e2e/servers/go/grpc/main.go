// SPDX-License-Identifier: Apache-2.0

// Command grpc answers any call; its first message says how. Usage: grpc PORT
//
// A message is JSON, padded with spaces. {"answers": 3, "size": 100, "code": 5, "wait": 20}: three
// messages of 100 bytes, then status 5, after 20 ms.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// raw hands messages over as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (raw) Name() string { return "proto" }

type wish struct {
	Answers int `json:"answers"`
	Size    int `json:"size"`
	Code    int `json:"code"`
	Wait    int `json:"wait"`
}

type line struct {
	ID            string `json:"id"`
	Method        string `json:"method"`
	Received      int    `json:"received"`
	ReceivedBytes int    `json:"received_bytes"`
	Sent          int    `json:"sent"`
	SentBytes     int    `json:"sent_bytes"`
	Code          int    `json:"code"`
}

// answer does what the first message wishes, once the client has sent its last one.
func answer(stream grpc.ServerStream, said *line) error {
	var asked wish
	for {
		var message []byte
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if said.Received == 0 {
			if err := json.Unmarshal(message, &asked); err != nil {
				return status.Error(codes.InvalidArgument, err.Error())
			}
		}
		said.Received++
		said.ReceivedBytes += len(message)
	}
	select {
	case <-time.After(time.Duration(asked.Wait) * time.Millisecond):
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	for i := 0; i < asked.Answers; i++ {
		message := bytes.Repeat([]byte("a"), asked.Size)
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
		said.Sent++
		said.SentBytes += len(message)
	}
	if asked.Code != 0 {
		return status.Error(codes.Code(asked.Code), fmt.Sprintf("wished for %d", asked.Code))
	}
	return nil
}

func main() {
	file, err := os.OpenFile(os.Getenv("ACCESS_LOG"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	var mutex sync.Mutex
	encoder := json.NewEncoder(file)
	handler := func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		said := line{ID: path.Base(method), Method: method}
		err := answer(stream, &said)
		said.Code = int(status.Code(err))
		mutex.Lock()
		defer mutex.Unlock()
		encoder.Encode(said)
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(handler))
	log.Fatal(server.Serve(listener))
}
