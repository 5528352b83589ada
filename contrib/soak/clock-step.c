/* Loaded before the C library (LD_PRELOAD), this lets one process and its children have another
 * time of day: the file that SOAK_CLOCK names holds the difference in seconds, as an 8-byte double,
 * and may be changed at any moment. Clocks that nobody can set, such as CLOCK_MONOTONIC and
 * CLOCK_BOOTTIME, stay what they are.
 *
 * libfaketime 0.9.10 would do, but with FAKETIME_DONT_FAKE_MONOTONIC it shifts the absolute times of
 * clock_nanosleep(2) nonetheless: each time.sleep() of Python fails with EINVAL, which no step of a
 * clock does. It also asks the environment again, which a handler of the agent has emptied.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile double *step;

__attribute__((constructor)) static void map_step(void)
{
	const char *path = getenv("SOAK_CLOCK");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *step, PROT_READ, MAP_SHARED, file, 0);
	if (mapped != MAP_FAILED)
		step = mapped;
	if (file >= 0)
		close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int status = syscall(SYS_clock_gettime, clock, now);
	if (status == 0 && step && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += (time_t)*step;
	return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec found;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &found);
	now->tv_sec = found.tv_sec;
	now->tv_usec = found.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *seconds)
{
	struct timespec found;
	clock_gettime(CLOCK_REALTIME, &found);
	if (seconds)
		*seconds = found.tv_sec;
	return found.tv_sec;
}
