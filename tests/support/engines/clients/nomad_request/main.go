// Command nomad_request makes a container by the calls and with the settings of Nomad's docker
// driver, in its own client library: nomad_request ENDPOINT IMAGE ALLOCATION SECURITY_OPT COMMAND...
//
// Nomad itself is not run. Source: hashicorp/nomad, drivers/docker/driver.go, createContainerConfig.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
)

const allocation = "5456bd7a-9fc0-c0dd-6131-cbee77f57577"

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(endpoint, image, directory, option string, command []string) error {
	ctx := context.Background()
	docker, err := client.NewClientWithOpts(client.WithHost(endpoint), client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer docker.Close()
	if _, err := docker.ImageInspect(ctx, image); err != nil {
		return err
	}
	created, err := create(ctx, docker, image, directory, option, command)
	if err != nil {
		return fmt.Errorf("Failed to create container: %w", err)
	}
	defer docker.ContainerRemove(ctx, created, container.RemoveOptions{Force: true})
	if _, err := docker.ContainerInspect(ctx, created); err != nil {
		return err
	}
	ended, failed := docker.ContainerWait(ctx, created, container.WaitConditionNextExit)
	if err := docker.ContainerStart(ctx, created, container.StartOptions{}); err != nil {
		return fmt.Errorf("Failed to start container: %w", err)
	}
	select {
	case err := <-failed:
		return err
	case result := <-ended:
		if err := show(ctx, docker, created); err != nil {
			return err
		}
		if result.StatusCode != 0 {
			return fmt.Errorf("Docker container exited with non-zero exit code: %d", result.StatusCode)
		}
		return nil
	}
}

func create(
	ctx context.Context, docker *client.Client, image, directory, option string, command []string,
) (string, error) {
	memory, noSwap, noLimit := int64(300<<20), int64(0), int64(0)
	var binds []string
	for source, target := range map[string]string{"alloc": "/alloc", "local": "/local", "secrets": "/secrets"} {
		binds = append(binds, filepath.Join(directory, source)+":"+target)
	}
	config := &container.Config{
		Image:  image,
		Cmd:    command,
		Labels: map[string]string{"com.hashicorp.nomad.alloc_id": allocation},
		Env:    []string{"NOMAD_ALLOC_DIR=/alloc", "NOMAD_TASK_DIR=/local", "NOMAD_SECRETS_DIR=/secrets"},
	}
	host := &container.HostConfig{
		Binds:       binds,
		SecurityOpt: []string{option},
		NetworkMode: "none",
		LogConfig:   container.LogConfig{Type: "json-file", Config: map[string]string{"max-file": "2", "max-size": "2m"}},
		CapDrop:     []string{"audit_write", "mknod", "net_raw"},
		Resources: container.Resources{
			Memory:           memory,
			MemorySwap:       memory,
			MemorySwappiness: &noSwap,
			PidsLimit:        &noLimit,
			CPUShares:        100,
		},
	}
	created, err := docker.ContainerCreate(ctx, config, host, nil, nil, "web-"+allocation)
	return created.ID, err
}

func show(ctx context.Context, docker *client.Client, id string) error {
	logs, err := docker.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return err
	}
	defer logs.Close()
	_, err = stdcopy.StdCopy(os.Stdout, os.Stderr, logs)
	return err
}
