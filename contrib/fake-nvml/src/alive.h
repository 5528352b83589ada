#ifndef ALIVE_H
#define ALIVE_H

#include <stdbool.h>

/* Whether the pid is a running process; a start time that is not 0 must be that of the process. */
bool is_alive(unsigned int pid, unsigned long long start);

#endif
