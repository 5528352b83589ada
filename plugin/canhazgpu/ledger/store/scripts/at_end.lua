-- What each script does last, whatever it has changed. See common.lua.
local function at_end()
  if head_is_old then write_head() end
end
